"""SGLang's RadixCache as bookkeeping: a compressed radix tree over pages, with locks and eviction of unused leaves.

Sizes are in pages. A page is any hashable key; a request's pages are one tuple or one `array`, always the same type
within a cache, so that stretches of them are compared at memory speed. Not here: free memory (memory.py), requests.
Source of the behaviour: SGLang's srt/mem_cache/radix_cache.py, read at 0.5.x.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

Pages = Sequence[Hashable]
Mark = Hashable
"""What a listener wants to remember of one stored page, for instance its block hash."""


class CacheListener(Protocol):
    """Told of every page that enters or leaves the tree, as it happens."""

    def stored(self, namespace: Hashable, parent: Mark | None, pages: Pages) -> Sequence[Mark]:
        """`pages` follow the page marked `parent` (None: they open a prompt). Returns one mark for each."""
        ...

    def removed(self, namespace: Hashable, marks: Sequence[Mark]) -> None:
        """The pages with these marks, in prompt order, are gone; whatever followed them went before."""
        ...

    def cleared(self) -> None:
        """All pages are gone."""
        ...


class Node:
    """A run of pages between two branching points. Opaque to all but the cache; requests hold one to lock."""

    __slots__ = ("children", "heaped", "locks", "marks", "namespace", "pages", "parent", "used_at")

    def __init__(self, namespace: Hashable, pages: Pages, parent: Node | None, used_at: int) -> None:
        self.namespace = namespace
        self.pages = pages
        self.parent = parent
        self.used_at = used_at
        self.children: dict[Hashable, Node] = {}
        self.locks = 0
        self.heaped = False
        self.marks: Sequence[Mark] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """The `pages` of a prompt that are in the tree, and the node where they end."""

    pages: int
    node: Node


class Look(NamedTuple):
    """The `pages` of a prompt that are in the tree; the last node that lies among them whole, and where it ends; the
    node that they end inside, if any, and its size.
    """

    pages: int
    node: Node
    node_pages: int
    tree: int
    inside: Node | None = None
    inside_pages: int = 0


class RadixCache:
    """One tree; namespaces never share pages. Counts pages that are locked and pages that could be evicted."""

    def __init__(self, listener: CacheListener | None = None) -> None:
        self._listener = listener
        self._root = Node(None, (), None, 0)
        self._tree = 0  # counts `clear`: what was seen before one is not there after it
        self._tick = 0  # counts uses; orders them as SGLang's clock does
        self._heap: list[tuple[int, int, Node]] = []  # (used_at or older, tie-break, leaf)
        self._pushes = 0
        self._evictable = 0
        self._locked = 0

    @property
    def evictable_pages(self) -> int:
        return self._evictable

    @property
    def locked_pages(self) -> int:
        return self._locked

    def match(self, namespace: Hashable, pages: Pages, limit: int) -> Match:
        """The longest prefix of `pages[:limit]` in the tree. Counts as a use, and splits a node that it ends in."""
        return self._walk(namespace, pages, limit)

    def peek(self, namespace: Hashable, pages: Pages, limit: int) -> int:
        """How many pages `match` would find; changes nothing."""
        return self.look(namespace, pages, limit, None).pages

    def look(self, namespace: Hashable, pages: Pages, limit: int, before: Look | None) -> Look:
        """`peek` for who asks often: goes on from where an earlier look at the same pages, with the same limit, ended,
        if that is still in the tree. Changes nothing.
        """
        if before is not None and before.tree == self._tree and before.node.parent is not None:
            node, whole = before.node, before.node_pages
        else:
            node, whole, before = self._root, 0, None
        while whole < limit:
            child = node.children.get(_child_key(node, namespace, pages[whole]))
            if child is None:
                break
            stored = child.pages
            size = len(stored)
            if before is not None and before.inside is child and before.inside_pages == size:
                return before
            if size > limit - whole or stored != pages[whole : whole + size]:
                return Look(whole + _common(stored, pages, whole, limit), node, whole, self._tree, child, size)
            node, whole = child, whole + size
        return Look(whole, node, whole, self._tree)

    def insert(self, namespace: Hashable, pages: Pages, count: int) -> Match:
        """Stores `pages[:count]`. The match says how many were there before and the node where `count` ends."""
        found = self._walk(namespace, pages, count)
        if found.pages == count:
            return found
        parent = found.node
        node = Node(namespace, pages[found.pages : count], parent, self._tick)
        parent.children[_child_key(parent, namespace, node.pages[0])] = node
        self._evictable += len(node.pages)
        self._offer(node)
        if self._listener is not None:
            above = parent.marks[-1] if parent.marks else None
            node.marks = self._listener.stored(namespace, above, node.pages)
        return Match(found.pages, node)

    def lock(self, node: Node) -> None:
        """Protects `node` and all above it from eviction until as many calls of `unlock`."""
        while node.parent is not None:
            if node.locks == 0:
                self._evictable -= len(node.pages)
                self._locked += len(node.pages)
            node.locks += 1
            node = node.parent

    def unlock(self, node: Node) -> None:
        """Takes back one `lock` of this node."""
        while node.parent is not None:
            node.locks -= 1
            if node.locks == 0:
                self._evictable += len(node.pages)
                self._locked -= len(node.pages)
                self._offer(node)
            node = node.parent

    def evict(self, pages: int) -> int:
        """Removes the least recently used unlocked leaves until `pages` are gone or none is left.

        A leaf goes whole, as in SGLang, so more may go than was asked. Returns how many went.
        """
        gone = 0
        while gone < pages and self._heap:
            used_at, _, node = heapq.heappop(self._heap)
            node.heaped = False
            if node.parent is None or node.locks or node.children:
                continue
            if node.used_at != used_at:  # used since it was pushed
                self._offer(node)
                continue
            gone += len(node.pages)
            self._remove(node)
        return gone

    def clear(self) -> None:
        """Empties the tree. The caller must hold no lock."""
        if self._locked:
            raise RuntimeError("a locked cache cannot be cleared")
        self._root = Node(None, (), None, 0)
        self._tree += 1
        self._heap = []
        self._evictable = 0
        if self._listener is not None:
            self._listener.cleared()

    def _walk(self, namespace: Hashable, pages: Pages, limit: int) -> Match:
        self._tick += 1
        node, done = self._root, 0
        while done < limit:
            child = node.children.get(_child_key(node, namespace, pages[done]))
            if child is None:
                break
            child.used_at = self._tick
            common = _common(child.pages, pages, done, limit)
            done += common
            if common < len(child.pages):
                node = self._split(child, common)
                break
            node = child
        return Match(done, node)

    def _split(self, node: Node, at: int) -> Node:
        """Puts a new node with the first `at` pages of `node` above it, with the same locks. Returns the new node."""
        parent = node.parent
        assert parent is not None
        upper = Node(node.namespace, node.pages[:at], parent, node.used_at)
        upper.locks = node.locks
        upper.marks = node.marks[:at]
        parent.children[_child_key(parent, node.namespace, upper.pages[0])] = upper
        node.pages = node.pages[at:]
        node.marks = node.marks[at:]
        node.parent = upper
        upper.children[node.pages[0]] = node
        return upper

    def _remove(self, node: Node) -> None:
        parent = node.parent
        assert parent is not None
        del parent.children[_child_key(parent, node.namespace, node.pages[0])]
        node.parent = None
        self._evictable -= len(node.pages)
        self._offer(parent)
        if self._listener is not None:
            self._listener.removed(node.namespace, node.marks)

    def _offer(self, node: Node) -> None:
        """Makes `node` known to eviction, if it could be evicted now. At most one entry each; stale ones are repaired
        when they come up, so that a use costs nothing here.
        """
        if node.heaped or node.children or node.locks or node.parent is None:
            return
        node.heaped = True
        self._pushes += 1
        heapq.heappush(self._heap, (node.used_at, self._pushes, node))


def _child_key(parent: Node, namespace: Hashable, page: Hashable) -> Hashable:
    """Children of the root are told apart by namespace too; below it, the namespace is settled."""
    return (namespace, page) if parent.parent is None else page


def _common(stored: Pages, pages: Pages, start: int, limit: int) -> int:
    """How many leading pages of `stored` equal those of `pages[start:limit]`. Compares slices, and halves them to find
    the first difference: the cost is that of a few memory comparisons, whatever the length.
    """
    low, high = 0, min(len(stored), limit - start)
    if (stored if high == len(stored) else stored[:high]) == pages[start : start + high]:
        return high
    while low + 1 < high:  # stored[:low] is equal, stored[:high] is not
        middle = (low + high) // 2
        if stored[low:middle] == pages[start + low : start + middle]:
            low = middle
        else:
            high = middle
    return low
