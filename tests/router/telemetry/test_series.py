"""Histograms and counters: where a number is counted."""

from __future__ import annotations

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from router.telemetry.series import Count, Spread

numbers = st.floats(-1e6, 1e6) | st.sampled_from([-1.0, 0.0, 0.5, 2.0, float("inf")])


@given(st.lists(numbers, min_size=1, max_size=20, unique=True).map(sorted), st.lists(numbers, max_size=20))
def test_a_number_is_counted_in_the_first_bucket_whose_bound_is_not_below_it(
    bounds: list[float], values: list[float]
) -> None:
    spread, expected = Spread(bounds), [0] * (len(bounds) + 1)
    for value in values:
        spread.observe(value)
        expected[bisect_left(bounds, value)] += 1

    assert spread.counts == expected


def test_a_workers_nonsense_does_not_count_backwards() -> None:
    count = Count()
    for number in (3, -5, 0, 2.5):
        count.add(number)

    assert count.value == 5.5
