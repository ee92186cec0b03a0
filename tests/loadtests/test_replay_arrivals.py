"""When the requests of a replay come."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from loadtests.replay_arrivals import arrivals
from loadtests.replay_config import ReplayConfig
from loadtests.replay_source import ReplayTraffic, traffic_of
from loadtests.traces import BlockRequest


def block(at_s: float, *, session: str | None = None) -> BlockRequest:
    return BlockRequest(arrival_s=at_s, prompt_tokens=512, output_tokens=5, blocks=(0,), session_id=session)


def traffic(*requests: BlockRequest) -> ReplayTraffic:
    return traffic_of(requests)


def test_rate_brings_arrivals_closer_together() -> None:
    requests = traffic(block(10.0), block(14.0)).requests

    assert arrivals(requests, ReplayConfig(rate=2.0)) == [0.0, 2.0]


@given(counts=st.lists(st.integers(1, 6), min_size=2, max_size=6), seed=st.integers(0, 5))
def test_arrivals_of_a_ticking_clock_spread_within_their_tick_and_keep_their_order(
    counts: list[int], seed: int
) -> None:
    requests = traffic(*(block(3.0 * tick) for tick, count in enumerate(counts) for _ in range(count))).requests

    times = arrivals(requests, ReplayConfig(seed=seed))

    assert times == sorted(times)
    ticks = [3.0 * tick for tick, count in enumerate(counts) for _ in range(count)]
    assert all(tick <= time < tick + 3.0 for tick, time in zip(ticks, times, strict=True))
    assert arrivals(requests, ReplayConfig(seed=seed, spread=False)) == ticks


def test_a_clock_that_does_not_tick_is_left_alone() -> None:
    requests = traffic(block(0.0), block(0.7), block(100.0)).requests

    assert arrivals(requests, ReplayConfig(seed=3)) == [0.0, 0.7, 100.0]


def test_jitter_moves_a_session_as_a_whole_and_differs_by_seed() -> None:
    requests = traffic(block(0.0, session="a"), block(5.0, session="a"), block(6.0, session="b")).requests

    one, other = (arrivals(requests, ReplayConfig(seed=seed, jitter_s=4.0)) for seed in (1, 2))

    assert one != other
    assert one[1] - one[0] == pytest.approx(5.0)
    assert all(0 <= moved - came < 4.0 for moved, came in zip(one, [0.0, 5.0, 6.0], strict=True))
