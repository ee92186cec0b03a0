"""Blocks that grow with their depth: what they add up to, and how much of a prompt a match can miss."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.prefix.block_sizes import blocks_of, depth_within, units_until

RUNS = ((16, 1), (8, 2), (8, 4))
"""(how many blocks, units of each), shallowest first; then LARGEST units each."""
LARGEST = 8


def test_sizes_are_those_of_the_runs_and_then_the_largest() -> None:
    sizes = [units for count, units in RUNS for _ in range(count)] + [LARGEST] * 100

    for depth in range(len(sizes) + 1):
        assert units_until(depth) == sum(sizes[:depth])


def test_a_long_prompt_has_few_blocks() -> None:
    assert [depth_within(size_bytes // 256) for size_bytes in (4_000, 40_000, 400_000)] == [15, 43, 219]


@given(st.integers(0, 2**50))
def test_what_lies_within_is_whole_and_the_next_block_is_not(units: int) -> None:
    depth = depth_within(units)

    assert units_until(depth) <= units < units_until(depth + 1)


@given(st.integers(16, 10**6))
def test_a_block_is_at_most_an_eighth_of_what_comes_before_it(depth: int) -> None:
    size = units_until(depth + 1) - units_until(depth)

    assert size <= min(LARGEST, units_until(depth) / 8)


@given(st.integers(0, 2000))
def test_a_block_bears_the_name_of_its_last_unit(units: int) -> None:
    blocks = blocks_of(range(1, units + 1))

    assert blocks == [units_until(depth) for depth in range(1, depth_within(units) + 1)]
