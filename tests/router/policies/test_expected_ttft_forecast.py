"""The forecast of requests to come: what it charges, and that more work is never cheaper for them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policies.expected_ttft_forecast import LONGEST_PAUSE_S, Forecast

seconds = st.floats(0.0, 60.0)


def made(*dispatches: tuple[float, float], length: int = 8) -> Forecast:
    forecast = Forecast(length)
    for at_s, own_s in dispatches:
        forecast.dispatched(at_s, own_s)
    return forecast


def test_without_a_past_only_what_is_left_costs() -> None:
    assert Forecast(8).waits_s([1.0, 3.0], 2.0) == 8.0
    assert Forecast(8).waits_s([1.0, 3.0], 0.0) == 0.0


def test_requests_to_come_wait_for_the_first_free_worker() -> None:
    forecast = made((0.0, 1.0), (1.0, 1.0))  # one at once, one a second later

    assert forecast.waits_s([0.0, 9.0], 0.0) == 0.0
    assert forecast.waits_s([2.0, 9.0], 0.0) == pytest.approx(2.0 + 2.0)  # free at 2 s, then at 3 s


def test_a_free_worker_left_makes_work_elsewhere_cheap() -> None:
    forecast = made(*((0.5 * number, 0.1) for number in range(8)))
    idle = forecast.waits_s([0.0, 0.0], 0.0)

    assert forecast.waits_s([3.0, 0.0], 0.0) - idle == pytest.approx(0.0)
    assert forecast.waits_s([3.0, 3.0], 0.0) - idle > 1.0


def test_clocks_that_jump_make_no_pause_longer_than_the_longest() -> None:
    forecast = made((0.0, 1.0), (1e12, 1.0), (5.0, 1.0))

    assert forecast.waits_s([2 * LONGEST_PAUSE_S], 1.0) < 3 * 2 * LONGEST_PAUSE_S


@given(
    st.lists(st.tuples(seconds, seconds), max_size=12),
    st.lists(seconds, min_size=1, max_size=6),
    seconds,
    st.floats(0.0, 10.0),
    st.data(),
)
def test_more_work_on_a_worker_never_shortens_the_waits_of_others(
    past: list[tuple[float, float]], free_s: list[float], more_s: float, price: float, data: st.DataObject
) -> None:
    forecast = made(*sorted(past))
    index = data.draw(st.integers(0, len(free_s) - 1))
    after = [value + more_s * (number == index) for number, value in enumerate(free_s)]

    assert forecast.waits_s(after, price) >= forecast.waits_s(free_s, price) - 1e-6
