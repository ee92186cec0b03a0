"""The radix cache against a brute-force set of pages, and its rules one by one."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from workers.simulated.radix_cache import Look, Mark, Match, Node, Pages, RadixCache

PAGES = st.lists(st.integers(0, 2), max_size=12).map(tuple)
NAMESPACES = st.sampled_from([None, "lora"])


class Ledger:
    """Marks a page with all pages up to it, and keeps the set of those that are stored."""

    def __init__(self) -> None:
        self.held: set[tuple[Hashable, tuple[Hashable, ...]]] = set()
        self.removals: list[Sequence[Mark]] = []

    def stored(self, namespace: Hashable, parent: Mark | None, pages: Pages) -> Sequence[Mark]:
        above = parent[1] if isinstance(parent, tuple) else ()
        marks = [(namespace, (*above, *pages[: end + 1])) for end in range(len(pages))]
        assert not self.held & set(marks), "a page is stored once"
        self.held.update(marks)
        return marks

    def removed(self, namespace: Hashable, marks: Sequence[Mark]) -> None:
        assert self.held >= set(marks), "only what is stored is removed"
        self.held.difference_update(marks)  # type: ignore[arg-type]
        self.removals.append(marks)

    def cleared(self) -> None:
        self.held.clear()


def leaves(cache: RadixCache) -> list[Node]:
    found, stack = [], list(cache._root.children.values())
    while stack:
        node = stack.pop()
        stack.extend(node.children.values())
        if not node.children:
            found.append(node)
    return found


class CacheAgainstSet(RuleBasedStateMachine):
    """The tree holds exactly the prefixes that a plain set holds, whatever is done to it."""

    locks = Bundle("locks")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.cache = RadixCache(self.ledger)
        self.held: set[tuple[Hashable, tuple[int, ...]]] = set()
        self.locked: list[tuple[Hashable, tuple[int, ...]]] = []
        self.looks: dict[tuple[Hashable, tuple[int, ...], int], Look] = {}

    def longest(self, namespace: Hashable, pages: tuple[int, ...]) -> int:
        return max((end for end in range(1, len(pages) + 1) if (namespace, pages[:end]) in self.held), default=0)

    @rule(namespace=NAMESPACES, pages=PAGES)
    def insert(self, namespace: Hashable, pages: tuple[int, ...]) -> None:
        before = self.longest(namespace, pages)
        assert self.cache.insert(namespace, pages, len(pages)).pages == before
        self.held.update((namespace, pages[:end]) for end in range(1, len(pages) + 1))

    @rule(namespace=NAMESPACES, pages=PAGES, limit=st.integers(0, 12))
    def match(self, namespace: Hashable, pages: tuple[int, ...], limit: int) -> None:
        limit = min(limit, len(pages))
        expected = self.longest(namespace, pages[:limit])
        assert self.cache.peek(namespace, pages, limit) == expected
        assert self.cache.match(namespace, pages, limit).pages == expected

    @rule(namespace=NAMESPACES, pages=PAGES, limit=st.integers(0, 12))
    def look(self, namespace: Hashable, pages: tuple[int, ...], limit: int) -> None:
        limit = min(limit, len(pages))
        self.looks[namespace, pages, limit] = self.cache.look(namespace, pages, limit, None)

    @invariant()
    def looking_again_from_where_a_look_ended_finds_what_is_there_now(self) -> None:
        for (namespace, pages, limit), before in self.looks.items():
            again = self.cache.look(namespace, pages, limit, before)
            assert again.pages == self.longest(namespace, pages[:limit])
            self.looks[namespace, pages, limit] = again

    @rule(target=locks, namespace=NAMESPACES, pages=PAGES)
    def lock(self, namespace: Hashable, pages: tuple[int, ...]) -> object:
        match = self.cache.match(namespace, pages, len(pages))
        self.cache.lock(match.node)
        self.locked.append((namespace, pages[: match.pages]))
        return multiple((match, self.locked[-1]))

    @rule(held=consumes(locks))
    def unlock(self, held: tuple[Match, tuple[Hashable, tuple[int, ...]]]) -> None:
        self.cache.unlock(held[0].node)
        self.locked.remove(held[1])

    @rule(pages=st.integers(1, 6))
    def evict(self, pages: int) -> None:
        oldest = min((leaf.used_at for leaf in leaves(self.cache) if not leaf.locks), default=None)
        first = {tuple(leaf.marks) for leaf in leaves(self.cache) if not leaf.locks and leaf.used_at == oldest}
        evictable = self.cache.evictable_pages
        self.ledger.removals.clear()
        gone = self.cache.evict(pages)
        assert gone >= min(pages, evictable), "it stops only when enough or all is gone"
        assert gone == sum(map(len, self.ledger.removals))
        if first:
            assert tuple(self.ledger.removals[0]) in first, "the least recently used leaf goes first"
        for marks in self.ledger.removals:
            self.held.difference_update(marks)  # type: ignore[arg-type]

    @rule()
    def clear(self) -> None:
        if self.cache.locked_pages:
            with pytest.raises(RuntimeError):
                self.cache.clear()
        else:
            self.cache.clear()
            self.held.clear()

    @invariant()
    def listener_and_set_agree(self) -> None:
        assert self.ledger.held == self.held

    @invariant()
    def locked_pages_are_there_and_counted(self) -> None:
        locked = {(namespace, pages[:end]) for namespace, pages in self.locked for end in range(1, len(pages) + 1)}
        assert locked <= self.held
        assert self.cache.locked_pages == len(locked)
        assert self.cache.evictable_pages == len(self.held) - len(locked)

    @invariant()
    def what_remains_is_closed_under_prefixes(self) -> None:
        assert all(len(pages) == 1 or (namespace, pages[:-1]) in self.held for namespace, pages in self.held)


CacheAgainstSet.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestCacheAgainstSet = CacheAgainstSet.TestCase


def test_a_match_that_ends_inside_a_node_splits_it_and_keeps_its_locks() -> None:
    cache = RadixCache()
    whole = cache.insert(None, (1, 2, 3, 4), 4)
    cache.lock(whole.node)
    inside = cache.match(None, (1, 2, 9), 3)
    assert inside.pages == 2
    assert (cache.locked_pages, cache.evict(4)) == (4, 0)
    cache.unlock(whole.node)
    assert (cache.locked_pages, cache.evictable_pages) == (0, 4)


def test_eviction_takes_a_leaf_whole_and_the_least_recently_used_first() -> None:
    cache = RadixCache()
    cache.insert(None, (1, 2, 3), 3)
    cache.insert(None, (1, 5, 6), 3)
    cache.match(None, (1, 2, 3), 3)
    assert cache.evict(1) == 2, "pages 5 and 6 go, though one was asked for"
    assert cache.peek(None, (1, 5, 6), 3) == 1
    assert cache.peek(None, (1, 2, 3), 3) == 3


def test_namespaces_share_nothing() -> None:
    cache = RadixCache()
    cache.insert(("model", None), (1, 2), 2)
    assert cache.peek(("model", "salt"), (1, 2), 2) == 0
    assert cache.insert(("model", "salt"), (1, 2), 2).pages == 0
    assert cache.evictable_pages == 4


@pytest.mark.parametrize("difference", [0, 1, 39_999, 40_000, 79_998, 79_999])
def test_arrays_of_tokens_match_up_to_the_first_difference(difference: int) -> None:
    stored = array("I", range(80_000))
    asked = array("I", stored)
    asked[difference] = 2**32 - 1
    cache = RadixCache()
    cache.insert(None, stored, len(stored))
    assert cache.match(None, asked, len(asked)).pages == difference
    assert cache.match(None, stored, len(stored)).pages == 80_000
