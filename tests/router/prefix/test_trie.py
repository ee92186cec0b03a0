"""The prefix trie against a naive list of prompts, and its bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.prefix.trie import PrefixTrie


def chained(blocks: list[int]) -> list[int]:
    """Hashes that name everything up to their block, as block_hash.chain makes them."""
    hashes, seed = [], 0
    for block in blocks:
        seed = hash((seed, block))
        hashes.append(seed)
    return hashes


prompts = st.lists(st.integers(0, 2), max_size=8).map(chained)


def common(a: list[int], b: list[int]) -> int:
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length


def blocks_of(stored: list[list[int]]) -> int:
    return len({block for prompt in stored for block in prompt})


@given(st.lists(prompts, max_size=20), prompts)
def test_without_eviction_it_matches_the_longest_common_prefix(stored: list[list[int]], asked: list[int]) -> None:
    trie = PrefixTrie(10_000)
    for prompt in stored:
        trie.insert(prompt)

    assert trie.match(asked) == max((common(prompt, asked) for prompt in stored), default=0)
    assert trie.size_blocks == blocks_of(stored)


@given(st.lists(prompts, max_size=30), st.integers(1, 12))
def test_it_never_exceeds_its_bound_and_keeps_the_last_prompt(stored: list[list[int]], capacity: int) -> None:
    trie = PrefixTrie(capacity)
    for prompt in stored:
        trie.insert(prompt)

        assert trie.size_blocks <= capacity
        assert trie.match(prompt) == min(len(prompt), capacity)


@given(st.lists(prompts, min_size=1, max_size=20), st.data())
def test_truncate_forgets_exactly_what_follows(stored: list[list[int]], data: st.DataObject) -> None:
    trie = PrefixTrie(10_000)
    for prompt in stored:
        trie.insert(prompt)
    victim = data.draw(st.sampled_from(stored))
    keep = data.draw(st.integers(0, len(victim)))
    before = trie.size_blocks

    removed = trie.truncate(victim, keep)

    assert trie.match(victim) == keep
    assert trie.size_blocks == before - removed
    gone = set(victim[keep : keep + 1])
    for other in stored:
        if not gone & set(other):
            assert trie.match(other) == len(other)


def test_the_least_recently_used_prompt_goes_first_and_shared_blocks_stay() -> None:
    trie = PrefixTrie(4)
    old, new = chained([1, 2, 3]), chained([1, 2, 4])
    trie.insert(old)
    trie.insert(new)

    trie.insert(chained([1, 2, 5]))

    assert trie.match(old) == 2
    assert trie.match(new) == 3


def test_clear_forgets_everything() -> None:
    trie = PrefixTrie(4)
    trie.insert(chained([1, 2]))

    trie.clear()

    assert (trie.size_blocks, trie.match(chained([1, 2]))) == (0, 0)
