"""Twenty seconds of chaos over eight simulated workers: every request ends once, rightly or with a reason."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHAOS = Path(__file__).parents[2] / "benchmarks" / "chaos"


@pytest.mark.timeout(240)
@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
async def test_nothing_is_lost_in_twenty_seconds_of_chaos(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(CHAOS))
    from run import run  # the program behind `python benchmarks/chaos`

    log = tmp_path / "log"
    report = await run(seconds=20, seed=1, rate_per_s=10.0, log=log)

    assert report["violations"] == [], f"{report}\n{log.read_text()[-5000:]}"
    assert report["requests"] == sum(report["ends"].values()) > 100
    assert len(report["troubles"]) >= 6
