"""RecentBlocks against a naive list of prompts, and its order of eviction."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from router.prefix.block_hash import chain
from router.prefix.block_sizes import units_until
from router.prefix.recent_blocks import RecentBlocks

PROMPTS = st.lists(st.integers(0, 2), max_size=6).map(lambda pieces: chain(bytes(pieces), 1, 7))


@given(history=st.lists(PROMPTS, max_size=12), asked=PROMPTS)
def test_match_is_the_longest_prefix_of_any_prompt(history: list[list[int]], asked: list[int]) -> None:
    stored = RecentBlocks()
    for mark, prompt in enumerate(history):
        stored.insert(prompt, mark)

    longest = max((sum(a == b for a, b in zip(prompt, asked, strict=False)) for prompt in history), default=0)

    assert stored.match(asked) == longest
    assert len(stored) == len({block for prompt in history for block in prompt})


@given(history=st.lists(PROMPTS, max_size=12), asked=PROMPTS, since=st.integers(0, 12))
def test_a_match_since_a_mark_is_that_of_the_prompts_since_then(
    history: list[list[int]], asked: list[int], since: int
) -> None:
    stored, later = RecentBlocks(), RecentBlocks()
    for mark, prompt in enumerate(history):
        stored.insert(prompt, mark)
        if mark >= since:
            later.insert(prompt, mark)

    assert stored.match(asked, since) == later.match(asked)


@given(history=st.lists(PROMPTS, max_size=12), capacity=st.integers(0, 10))
def test_trimming_holds_the_bound_and_leaves_no_hole(history: list[list[int]], capacity: int) -> None:
    stored = RecentBlocks()
    for mark, prompt in enumerate(history):
        stored.insert(prompt, mark)
    before = len(stored)

    gone = stored.trim(capacity)

    assert len(stored) == min(before, capacity) == before - gone
    for prompt in history:
        kept = [stored.mark(block) is not None for block in prompt]
        assert kept == sorted(kept, reverse=True)


LONG = st.tuples(st.sampled_from([0, 40]), st.lists(st.integers(0, 2), max_size=9)).map(
    lambda drawn: chain(bytes([3] * drawn[0] + drawn[1]), 1, 7)
)


@given(history=st.lists(LONG, max_size=12), capacity=st.integers(0, 99))
def test_a_bound_in_units_holds_and_drops_no_more_than_it_takes(history: list[list[int]], capacity: int) -> None:
    stored = RecentBlocks()
    for mark, prompt in enumerate(history):
        stored.insert(prompt, mark)
    depths = {block: depth for prompt in history for depth, block in enumerate(prompt, start=1)}
    units = {block: units_until(depth) - units_until(depth - 1) for block, depth in depths.items()}
    assert stored.size_units == sum(units.values())

    gone = stored.trim_units(capacity)

    assert stored.size_units == sum(size for block, size in units.items() if stored.mark(block) is not None) <= capacity
    assert len(stored) == len(units) - gone
    if gone:
        assert stored.size_units + max(units.values()) > capacity


@given(history=st.lists(PROMPTS, max_size=12), before=st.integers(0, 13))
def test_expiry_forgets_exactly_what_was_last_used_before(history: list[list[int]], before: int) -> None:
    stored, later = RecentBlocks(), RecentBlocks()
    for mark, prompt in enumerate(history):
        stored.insert(prompt, mark)
        if mark >= before:
            later.insert(prompt, mark)

    gone = stored.expire(before)

    assert len(stored) == len(later)
    assert gone == len({block for prompt in history for block in prompt}) - len(later)


def test_the_least_recently_used_leaf_goes_first() -> None:
    stored = RecentBlocks()
    stored.insert([1, 2, 3], 1)
    stored.insert([1, 4], 2)

    stored.trim(3)

    assert [block for block in (1, 2, 3, 4) if stored.mark(block) is not None] == [1, 2, 4]
