"""The figures of robustness, measured: `python benchmarks/robustness kill`, `hang`, `rolling` or `slow_clients`.

Each starts simulated workers and a router with its default settings, prints what it saw as JSON, and ends with exit
code 1 where the figure is not reached. Linux; a core or two for itself. docs/robustness.md says what is promised.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "chaos")]

from failures import hang, kill, rolling
from slow_clients import slow_clients

MEASURES = {"kill": kill, "hang": hang, "rolling": rolling, "slow_clients": slow_clients}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=MEASURES)
    parser.add_argument("--rounds", type=int, default=8, help="how often it is done")
    parser.add_argument("--log", type=Path, default=Path("robustness.log"), help="what the processes print")
    given = parser.parse_args()
    report = asyncio.run(MEASURES[given.measure](given.rounds, given.log))
    print(json.dumps(report, indent=2))
    return 1 if report["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
