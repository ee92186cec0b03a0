"""Blocks that grow with their depth: what they add up to, and how much of a prompt a match can miss."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.prefix.block_sizes import MOST_BLOCKS, SINGLE, blocks_of, depth_within, units_until


def test_sizes_double_after_every_sixteen_blocks() -> None:
    sizes = [units_until(depth) - units_until(depth - 1) for depth in range(1, 81)]

    assert sizes == [1] * 32 + [2] * 16 + [4] * 16 + [8] * 16


def test_a_long_prompt_has_few_blocks() -> None:
    assert [depth_within(size_bytes / 256) for size_bytes in (4_000, 40_000, 400_000, 4_000_000)] == [15, 67, 120, 174]


@given(st.integers(0, 2**50))
def test_what_lies_within_is_whole_and_the_next_block_is_not(units: int) -> None:
    depth = depth_within(units)

    assert units_until(depth) <= units
    assert depth == MOST_BLOCKS or units_until(depth + 1) > units


@given(st.integers(SINGLE, MOST_BLOCKS - 1))
def test_a_block_is_at_most_a_sixteenth_of_what_comes_before_it(depth: int) -> None:
    assert units_until(depth + 1) - units_until(depth) <= units_until(depth) / 16


@given(st.integers(0, 2000))
def test_a_block_bears_the_name_of_its_last_unit(units: int) -> None:
    blocks = blocks_of(range(1, units + 1))

    assert blocks == [units_until(depth) for depth in range(1, depth_within(units) + 1)]


def test_depths_that_no_prompt_has_are_no_error() -> None:
    assert units_until(10**9) == units_until(MOST_BLOCKS)
