"""The retry budget, pauses, and what a worker's refusal means."""

from __future__ import annotations

from random import Random

import pytest

from router.admission.retry import RetryBudget, RetryConfig, pause_asked_s, refusal
from router.errors import WorkerBusy, WorkerHungUp, WorkerUnreachable


def test_retries_are_a_share_of_traffic_once_the_floor_is_used_up() -> None:
    budget = RetryBudget(RetryConfig(budget_ratio=0.2, budget_floor=10), Random(0))
    allowed = 0
    for _ in range(1000):
        budget.request()
        allowed += budget.retry(0.0)

    assert 200 <= allowed <= 211
    assert budget.refused == 1000 - allowed


def test_the_floor_comes_back_with_time_and_no_more_than_it() -> None:
    budget = RetryBudget(RetryConfig(budget_ratio=0.0, budget_floor=10), Random(0))
    first = sum(budget.retry(0.0) for _ in range(20))
    after_5_s = sum(budget.retry(5.0) for _ in range(20))
    after_an_hour = sum(budget.retry(3600.0) for _ in range(20))

    assert (first, after_5_s, after_an_hour) == (10, 5, 10)


def test_what_never_arrived_is_sent_elsewhere_at_once_and_later_retries_pause_at_random() -> None:
    budget = RetryBudget(RetryConfig(), Random(0))
    first = [budget.pause_s(WorkerUnreachable("x"), 2) for _ in range(20)]
    third = [budget.pause_s(WorkerHungUp("x"), 4) for _ in range(200)]

    assert first == [0.0] * 20
    assert 0 <= min(third) < 0.01
    assert 0.09 < max(third) <= 0.1


@pytest.mark.parametrize(
    ("header", "seconds"), [(None, 0.5), ("3", 3.0), ("0", 0.0), ("-1", 0.0), ("86400", 30.0), ("nan", 0.5),
                            ("Wed, 21 Oct 2026 07:28:00 GMT", 0.5)]
)  # fmt: skip
def test_a_pause_is_taken_from_the_header_within_bounds(header: str | None, seconds: float) -> None:
    assert pause_asked_s(header) == seconds


def test_429_and_503_mean_busy_and_other_errors_mean_broken() -> None:
    assert isinstance(refusal("w", 429, None), WorkerBusy)
    assert isinstance(refusal("w", 503, "2"), WorkerBusy)
    assert not isinstance(refusal("w", 500, None), WorkerBusy)
