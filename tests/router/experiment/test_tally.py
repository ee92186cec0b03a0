"""Tallies against naive computations on the same numbers."""

from __future__ import annotations

from math import exp
from random import Random
from statistics import fmean

import pytest

from router.experiment.tally import GROUPS, MAX_BLOCKS, QuantileTally, RatioTally, TimeGrid


def test_blocks_merge_in_pairs_when_time_goes_on_and_no_request_is_lost() -> None:
    grid = TimeGrid(100.0, 1.0)
    tally = RatioTally(grid)
    for second in range(3 * MAX_BLOCKS):
        tally.add(2.0 if second < MAX_BLOCKS else 1.0, 1.0, 0, grid.block(100.0 + second))

    used = tally.blocks_used()
    assert grid.block_s == 4.0
    assert sum(used) == 3 * MAX_BLOCKS / 4
    assert tally.ratio == pytest.approx(4 / 3)
    assert sum(tally.block_influence()) == pytest.approx(0.0, abs=1e-12)
    assert tally.block_influence()[0] == pytest.approx(4 * (2 - 4 / 3) / (3 * MAX_BLOCKS))


def test_a_tally_that_was_idle_while_blocks_merged_catches_up() -> None:
    grid = TimeGrid(0.0, 1.0)
    idle, busy = RatioTally(grid), RatioTally(grid)
    idle.add(1.0, 1.0, 0, grid.block(10.0))
    busy.add(1.0, 1.0, 0, grid.block(5.0 * MAX_BLOCKS))
    idle.add(1.0, 1.0, 0, grid.block(5.0 * MAX_BLOCKS))

    assert [place for place, is_used in enumerate(idle.blocks_used()) if is_used] == [1, 5 * MAX_BLOCKS // 8]


def test_the_variance_of_independent_requests_is_the_textbook_one() -> None:
    rng = Random(1)
    grid = TimeGrid(0.0, 1.0)
    tally = RatioTally(grid)
    values = [rng.expovariate(1.0) for _ in range(2000)]
    for value in values:
        tally.add(value, 1.0, rng.randrange(GROUPS), 0)

    mean = fmean(values)
    textbook = fmean((value - mean) ** 2 for value in values) / len(values)
    by_group, used = tally.variance_by_group()
    assert tally.variance_alone() == pytest.approx(textbook)
    assert by_group == pytest.approx(textbook, rel=0.3)
    assert used > GROUPS * 0.99


def test_requests_of_one_session_count_as_little_as_they_tell() -> None:
    """40 copies of each of 250 values say no more than the 250 values do."""
    rng = Random(2)
    tally = RatioTally(TimeGrid(0.0, 1.0))
    for session in range(250):
        value = rng.gauss(1.0, 0.3)
        for _ in range(40):
            tally.add(value, 1.0, session % GROUPS, 0)

    by_group, _ = tally.variance_by_group()
    assert by_group / tally.variance_alone() == pytest.approx(40, rel=0.1)


def test_quantiles_are_within_a_percent_of_the_sorted_list() -> None:
    rng = Random(3)
    tally = QuantileTally()
    values = sorted(exp(rng.gauss(-1.0, 1.0)) for _ in range(20_000))
    for value in values:
        tally.add(value, 0)

    found = tally.quantiles([0.5, 0.9, 0.99, 1.2, -0.1])

    assert found[3:] == [None, None]
    for share, got in zip([0.5, 0.9, 0.99], found[:3], strict=True):
        assert got == pytest.approx(values[int(share * len(values))], rel=0.01)


def test_values_outside_of_the_histogram_go_to_its_ends() -> None:
    tally = QuantileTally()
    for value in (0.0, 1e-9, 1e9):
        tally.add(value, 1)

    low, high = tally.quantiles([0.1, 0.9])
    assert low is not None
    assert high is not None
    assert low < 2e-5
    assert high > 600


def test_the_design_effect_of_a_quantile_is_the_size_of_sessions_that_repeat_themselves() -> None:
    rng = Random(4)
    repeated, alone = QuantileTally(), QuantileTally()
    for _ in range(250):
        value, group = exp(rng.gauss(0, 1)), rng.randrange(GROUPS)
        for _ in range(20):
            repeated.add(value, group)
            alone.add(exp(rng.gauss(0, 1)), rng.randrange(GROUPS))

    assert repeated.design_effect(1.0) == pytest.approx(20, rel=0.35)
    assert alone.design_effect(1.0) == pytest.approx(1.1, abs=0.3)
