"""Chaos over a simulated fleet: `python benchmarks/chaos --minutes 30 --seed 1`. Exit code 1 when anything was lost.

Needs Linux, and a core or two for itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from run import run
from schedule import KINDS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--rate", type=float, default=15.0, help="requests a second")
    parser.add_argument("--policy", default="expected_ttft")
    parser.add_argument("--without", action="append", default=[], choices=KINDS, help="no trouble of this kind")
    parser.add_argument("--log", type=Path, default=Path("chaos.log"), help="what the processes print")
    given = parser.parse_args()
    report = asyncio.run(_run(given))
    print(json.dumps(report, indent=2))
    return 1 if report["violations"] else 0


async def _run(given: argparse.Namespace) -> dict[str, Any]:
    """SIGTERM ends the run and every process of it, as Ctrl-C does."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run(
        seconds=60 * given.minutes,
        seed=given.seed,
        workers=given.workers,
        rate_per_s=given.rate,
        log=given.log,
        kinds=tuple(kind for kind in KINDS if kind not in given.without),
        flags=("--policy", given.policy),
    )


if __name__ == "__main__":
    sys.exit(main())
