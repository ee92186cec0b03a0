"""Rates of prefill: learned from what they should be, and hardly moved by nonsense."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policies.expected_ttft_rate import RANGE, TOKEN_S, PrefillRate


def test_it_starts_near_what_an_h200_takes() -> None:
    rate = PrefillRate()

    assert rate.seconds(8044, 0) == pytest.approx(0.278, rel=0.1)
    assert rate.seconds(16_100, 0) == pytest.approx(0.782, rel=0.1)
    assert rate.seconds(1, 16_100) == pytest.approx(0.072, rel=0.1)


def test_features_sum_to_seconds() -> None:
    rate = PrefillRate()
    for new, context in ((1, 0), (500, 20_000), (9000, 100), (40_000, 80_000)):
        assert sum(rate.features(new, context)) == pytest.approx(rate.seconds(new, context))


@pytest.mark.parametrize("speed", [0.1, 0.5, 3.0])
def test_another_speed_is_learned_in_spite_of_outliers(speed: float) -> None:
    rate, truth, rng = PrefillRate(), PrefillRate(), Random(1)
    for _ in range(400):
        new, context = rng.randint(100, 20_000), rng.randint(0, 20_000)
        took_s = truth.seconds(new, context) / speed
        if rng.random() < 0.2:
            took_s *= 10  # it waited for something else
        rate.learn(rate.features(new, context), took_s)

    assert rate.seconds(8000, 0) == pytest.approx(truth.seconds(8000, 0) / speed, rel=0.35)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(allow_nan=True)), max_size=50))
def test_no_observation_takes_a_cost_out_of_its_range(seen: list[tuple[float, float, float]]) -> None:
    rate = PrefillRate()
    for new, context, took_s in seen:
        rate.learn(rate.features(new, context), took_s)

    assert TOKEN_S / RANGE * 0.99 <= rate.costs[1] <= TOKEN_S * RANGE * 1.01
    assert rate.seconds(1000, 0) > 0.0


@pytest.mark.parametrize("took_s", [2e-4, 3000.0])
def test_a_worker_that_is_always_absurd_takes_its_costs_to_the_edge_of_their_range_and_no_further(
    took_s: float,
) -> None:
    rate = PrefillRate()
    for _ in range(2000):
        rate.learn(rate.features(8000, 0), took_s)
    edge = TOKEN_S / RANGE if took_s < 1.0 else TOKEN_S * RANGE

    assert rate.costs[1] == pytest.approx(edge)
