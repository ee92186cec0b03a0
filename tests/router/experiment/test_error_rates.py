"""The claim that experiments rest on, in small: intervals looked at often do not cry wolf, and find what is there.

The same in full, with 1,000 experiments a row: benchmarks/experiment_error_rates.py.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from scripts import load_script

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "experiment_error_rates.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    pytest.importorskip("numpy", reason="needs numpy (extra: loadtest)")
    return load_script(SCRIPT)


@pytest.mark.parametrize(("place", "requests"), [(1, 3600), (4, 6000)])
def test_no_more_than_a_few_of_many_experiments_without_a_difference_find_one(
    script: ModuleType, place: int, requests: int
) -> None:
    """Correlated sessions, and arms that alternate: 25 experiments with 8 looks each. An ordinary interval, looked at
    as often, is wrong in every second one."""
    rates = script.false_alarms(
        script.SCENARIOS[place], experiments=25, requests=requests, look_every=requests // 8, seed=11
    )

    assert all(rates[measure] <= 0.05 for measure in script.MEASURES)
    assert rates["peeking"] > 0.3


def test_a_difference_of_a_quarter_is_found_in_a_few_thousand_requests(script: ModuleType) -> None:
    needed = script.requests_needed(
        script.SCENARIOS[0], effect=-0.25, experiments=5, requests=3000, look_every=500, seed=11
    )

    assert all(half is not None and half <= 3000 for half, _ in needed.values())
