"""The image of a worker's cache against a naive LRU of blocks, its bound, its locks and what it forgets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.prefix.block_sizes import units_until
from router.prefix.cache_image import CacheImage, Entry

TOKENS = 64.0


def chained(blocks: list[int]) -> list[int]:
    """Hashes that name everything up to their block, as block_hash.chain makes them."""
    hashes, seed = [], 0
    for block in blocks:
        seed = hash((seed, block))
        hashes.append(seed)
    return hashes


prompts = st.tuples(st.sampled_from([0, 30]), st.lists(st.integers(0, 2), max_size=8)).map(
    lambda drawn: chained([3] * drawn[0] + drawn[1])
)
"""Short ones, and some with a long beginning in common, behind which blocks are larger."""


class Naive:
    """Every block with the tick of its last use, the held prompts, and nothing clever."""

    def __init__(self) -> None:
        self.last: dict[int, int] = {}
        self.held: list[list[int]] = []
        self.tick = 0

    def use(self, prompt: list[int]) -> None:
        self.tick += 1
        for block in prompt:
            self.last[block] = self.tick

    def match(self, prompt: list[int]) -> int:
        for depth, block in enumerate(prompt):
            if block not in self.last:
                return depth
        return len(prompt)

    def locked(self, prompt: list[int]) -> int:
        held = {block for one in self.held for block in one}
        return sum(block in held for block in prompt)


def consistent(image: CacheImage) -> None:
    """Each block belongs to one stored entry, which lists it; and the sizes add up."""
    assert not any(entry.held for entry in image._recent.values())
    entries = [*image._recent.values(), *(entry for entry in image._held if entry.stored)]
    owned = [block for entry in entries for block in entry.blocks[entry.first - entry.base :]]
    assert sorted(owned) == sorted(image._owner)
    assert all(image._owner[block] is entry for entry in entries for block in entry.blocks[entry.first - entry.base :])
    assert list(image._recent) == sorted(entry.used_at for entry in image._recent.values())
    held_blocks = {block for entry in image._held if entry.stored for block in entry.blocks}
    assert not any(
        block in held_blocks for entry in image._recent.values() for block in entry.blocks[entry.first - entry.base :]
    )
    assert image.size_tokens == pytest.approx(sum(entry.tokens for entry in entries))
    assert image.held_tokens == pytest.approx(sum(entry.tokens for entry in entries if entry.held))


@given(st.lists(prompts, max_size=25), prompts)
def test_without_eviction_it_knows_exactly_the_blocks_used(stored: list[list[int]], asked: list[int]) -> None:
    image, naive = CacheImage(1e9, 10**6), Naive()
    for prompt in stored:
        found = naive.match(prompt)
        use = image.use(prompt, TOKENS, 0.0)
        naive.use(prompt)
        image.release(use.entry)

        assert use.found_blocks == found
        consistent(image)

    assert image.match(asked) == naive.match(asked)
    assert image.size_blocks == len(naive.last)


@given(st.lists(prompts.filter(bool), max_size=25))
def test_every_block_counts_once_as_long_as_it_is(stored: list[list[int]]) -> None:
    image = CacheImage(1e9, 10**6)
    for prompt in stored:
        image.release(image.use(prompt, TOKENS, 0.0).entry)

    depths = {block: depth for prompt in stored for depth, block in enumerate(prompt, start=1)}
    units = sum(units_until(depth) - units_until(depth - 1) for depth in depths.values())
    assert image.size_tokens == pytest.approx(units * TOKENS)


steps = st.lists(st.tuples(st.sampled_from(["use", "reuse", "release", "cut", "grow"]), prompts, st.integers(0, 9)))


@given(steps, st.integers(1, 12))
def test_it_stays_whole_under_any_order_of_calls(calls: list[tuple[str, list[int], int]], capacity: int) -> None:
    image = CacheImage(capacity * TOKENS, 10**6)
    held: list[Entry] = []
    for call, prompt, number in calls:
        if call == "use" or not held:
            held.append(image.use(prompt, TOKENS, float(number)).entry)
        elif call == "reuse":
            image.reuse(held[number % len(held)])
        elif call == "grow":
            image.grow(held[number % len(held)], 10.0 * number)
        else:
            entry = held.pop(number % len(held))
            if call == "cut":
                image.cut(entry)
            image.release(entry)
        consistent(image)
        assert image.size_tokens <= capacity * TOKENS or not image._recent
        for entry in held:
            if entry.stored:
                assert image.match(entry.blocks) == len(entry.blocks)

    for entry in held:
        image.release(entry)
    assert image.size_tokens <= capacity * TOKENS


@given(st.lists(prompts, max_size=12), st.data())
def test_locked_is_what_held_prompts_share(stored: list[list[int]], data: st.DataObject) -> None:
    image, naive = CacheImage(1e9, 10**6), Naive()
    for prompt in stored:
        use = image.use(prompt, TOKENS, 0.0)
        if data.draw(st.booleans()):
            naive.held.append(prompt)
        else:
            image.release(use.entry)
    for prompt in stored:
        assert image.locked(prompt, len(prompt)) == naive.locked(prompt)


def test_the_least_recently_used_end_goes_first_and_shared_blocks_stay() -> None:
    image = CacheImage(4 * TOKENS, 10**6)
    old, new = chained([1, 2, 3]), chained([1, 2, 4])
    for prompt in (old, new, chained([1, 2, 5])):
        image.release(image.use(prompt, TOKENS, 0.0).entry)

    assert (image.match(old), image.match(new)) == (2, 3)


def test_what_is_held_outlives_what_is_newer() -> None:
    image = CacheImage(4 * TOKENS, 10**6)
    held = chained([1, 2])
    image.use(held, TOKENS, 0.0)
    for first in (3, 4, 5):
        image.release(image.use(chained([first, 1]), TOKENS, 0.0).entry)

    assert image.match(held) == 2
    assert image.match(chained([3, 1])) == 0


def test_answers_take_room() -> None:
    image = CacheImage(4 * TOKENS, 10**6)
    old = image.use(chained([1]), TOKENS, 0.0).entry
    image.release(old)
    talker = image.use(chained([2]), TOKENS, 0.0).entry
    image.grow(talker, 3.5 * TOKENS)

    assert image.match(chained([1])) == 0


def test_forgetting_up_to_a_use_takes_all_that_was_not_used_since() -> None:
    image = CacheImage(1e9, 10**6)
    for prompt in ([1, 1], [2, 2], [1, 3]):
        image.release(image.use(chained(prompt), TOKENS, 0.0).entry)
    again = image.use(chained([2, 2]), TOKENS, 0.0)

    image.forget_until(again.before[-1][1])

    assert image.match(chained([1, 1])) == 1  # its first block was used by [1, 3]
    assert image.match(chained([1, 3])) == 2
    assert image.match(chained([2, 2])) == 2  # in use again


def test_cutting_a_prompt_that_was_never_computed_leaves_what_was_there() -> None:
    image = CacheImage(1e9, 10**6)
    image.release(image.use(chained([1, 2]), TOKENS, 0.0).entry)
    failed = image.use(chained([1, 2, 3, 4]), TOKENS, 0.0)
    image.cut(failed.entry)
    image.release(failed.entry)

    assert image.match(chained([1, 2, 3, 4])) == 2


def test_cutting_leaves_what_another_request_brings() -> None:
    image = CacheImage(1e9, 10**6)
    failed = image.use(chained([1, 2, 3]), TOKENS, 0.0)
    image.use(chained([1, 2, 3, 4]), TOKENS, 0.0)
    image.cut(failed.entry)

    assert image.match(chained([1, 2, 3, 4])) == 4


def test_cutting_after_the_prompt_was_renewed_leaves_what_another_request_brings() -> None:
    """The renewal takes the shared blocks back from the other request, which still brings them."""
    image = CacheImage(TOKENS, 10**6)
    failed = image.use(chained([1]), TOKENS, 0.0)
    image.use(chained([1]), TOKENS, 0.0)
    image.use(chained([2]), TOKENS, 0.0)  # over the bound: what is held moves up
    image.cut(failed.entry)

    assert image.match(chained([1])) == 1


def test_clear_forgets_everything_and_late_calls_are_harmless() -> None:
    image = CacheImage(1e9, 10**6)
    entry = image.use(chained([1, 2]), TOKENS, 5.0).entry
    image.clear()
    image.grow(entry, 9.0)
    image.cut(entry)
    image.release(entry)

    assert (image.size_tokens, image.held_tokens, image.size_blocks) == (0.0, 0.0, 0)


def test_evictions_are_told_with_their_first_block() -> None:
    told: list[tuple[int, float]] = []

    def tell(entry: Entry) -> None:
        told.append((entry.blocks[entry.first - entry.base], entry.tokens))

    image = CacheImage(3 * TOKENS, 10**6, tell)
    old = chained([1, 2])
    image.release(image.use(old, TOKENS, 0.0).entry)
    image.use(chained([1, 3, 4]), TOKENS, 0.0)

    assert told == [(old[1], TOKENS)]


def test_a_prompt_that_is_let_go_twice_is_let_go_once() -> None:
    image = CacheImage(1e9, 10**6)
    first, second = (image.use(chained(blocks), TOKENS, 0.0).entry for blocks in ([1], [2]))
    image.release(first)
    image.release(second)
    image.release(first)
    image.forget_until(first.used_at)

    assert (image.match(chained([1])), image.match(chained([2]))) == (0, 1)


def test_all_that_nobody_holds_may_be_forgotten_at_once() -> None:
    image = CacheImage(1e9, 10**6)
    image.release(image.use(chained([1, 2]), TOKENS, 0.0).entry)
    image.use(chained([3]), TOKENS, 0.0)
    image.forget_until(10**9)

    assert (image.match(chained([1, 2])), image.match(chained([3]))) == (0, 1)
