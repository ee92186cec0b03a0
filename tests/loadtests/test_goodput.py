"""The search for the highest rate, over made-up servers whose limit is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from loadtests.goodput import WIDEST, Goodput, GoodputSearch, Trial
from loadtests.scenario_spec import GoodputSpec

Meets = Callable[[float, int], bool]


class Server:
    """Meets the objective as `meets(rate, seed)` says; each trial takes a minute."""

    def __init__(self, meets: Meets) -> None:
        self.meets = meets
        self.now_s = 0.0

    async def measure(self, rate: float, seed: int) -> Trial:
        self.now_s += 60.0
        met = self.meets(rate, seed)
        return Trial(
            rate=rate, seed=seed, requests_per_s=10 * rate, arrivals_s=60 / rate, share=1.0 if met else 0.5, met=met
        )

    async def search(self, **spec: float) -> Goodput:
        wanted = GoodputSpec(**{"max_trials": 60, "max_minutes": 1e6, **spec})  # type: ignore[arg-type]
        return await GoodputSearch("arm", self.measure, wanted, lambda: self.now_s).run()


@pytest.mark.parametrize("limit", [0.03, 0.9, 1.0, 7.3, 200.0])
async def test_it_finds_a_limit_to_within_its_tolerance_from_either_side(limit: float) -> None:
    found = await Server(lambda rate, seed: rate <= limit).search(tolerance=0.1)

    assert found.best is not None
    assert found.failed_rate is not None
    assert found.best.rate <= limit < found.failed_rate <= found.best.rate * 1.1
    assert (found.confirmed, found.stopped) == (True, "")
    assert len(found.trials) <= 2 + math.log2(WIDEST) + 4


async def test_a_rate_that_fails_with_other_traffic_is_not_the_answer() -> None:
    """Seed 0 is lucky: it passes up to 8, other seeds only up to 3."""
    found = await Server(lambda rate, seed: rate <= (8 if seed == 0 else 3)).search(confirmations=2)

    assert found.best is not None
    assert found.confirmed
    assert found.best.rate <= 3
    assert {trial.seed for trial in found.trials if trial.rate == found.best.rate} == {0, 1, 2}


async def test_a_confirmation_that_fails_at_the_lowest_rate_tried_goes_lower() -> None:
    found = await Server(lambda rate, seed: rate <= (1 if seed == 0 else 0.4)).search(start_rate=1.0)

    assert found.best is not None
    assert 0.3 < found.best.rate <= 0.4


async def test_a_server_that_never_meets_the_objective_has_no_goodput() -> None:
    found = await Server(lambda rate, seed: False).search()

    assert (found.best, found.confirmed, found.stopped) == (None, False, "")


async def test_a_server_that_always_meets_it_has_a_lower_bound_only() -> None:
    found = await Server(lambda rate, seed: True).search()

    assert found.best is not None
    assert (found.best.rate, found.failed_rate, found.confirmed) == (WIDEST, None, True)


async def test_trials_are_bounded_and_what_is_known_is_told() -> None:
    found = await Server(lambda rate, seed: rate <= 5).search(max_trials=4)

    assert found.best is not None
    assert (len(found.trials), found.best.rate, found.confirmed) == (4, 4.0, False)
    assert found.stopped == "after 4 trials (goodput.max_trials)"


async def test_time_is_bounded() -> None:
    found = await Server(lambda rate, seed: rate <= 5).search(max_minutes=2.5)

    assert len(found.trials) == 3
    assert found.stopped == "after 2.5 minutes (goodput.max_minutes)"
