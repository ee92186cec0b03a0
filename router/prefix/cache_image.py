"""What one worker's KV cache probably holds, as far as its requests tell: an image of SGLang's RadixCache, in tokens.

A use takes every block of the prompt over from earlier users, so each block belongs to the last prompt that used it,
and what an older prompt still owns is always the end of it, a leaf of SGLang's tree. Prompts that a request holds are
kept apart: when one is released, the held prompt that shares most with it takes their common blocks over, so what is
not held owns no block that is. Eviction drops the ends of what is not held, least recently used first, until the bound
holds. `match` reads; all else writes. Long, because every method keeps the same sums and order. No policy, no I/O, no
clock. Called by policies (expected_ttft).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Final, NamedTuple

from router.compiled import mypyc_attr
from router.prefix.block_hash import Block
from router.prefix.block_sizes import units_until

LEAST_ENTRY_TOKENS: Final = 16.0
"""A prompt counts for at least this much, so that a bound in tokens also bounds how many prompts are kept."""


@mypyc_attr(acyclic=True)
class Entry:
    """One prompt as it was last used. Opaque to callers, who keep it between `use` and `release`.

        depth      0        first        first + owned        len(blocks)
                   | newer   |  this entry's own blocks         | tail: partial block and answer
    """

    __slots__ = (
        "base", "blocks", "counted_tokens", "first", "held", "known", "stored", "tail_tokens", "unit_tokens",
        "used_at", "used_s",
    )  # fmt: skip

    def __init__(self, blocks: list[Block], unit_tokens: float, tail_tokens: float) -> None:
        self.blocks = blocks
        self.base = 0  # depth of blocks[0]: what newer entries own is cut off in time
        self.first = 0
        self.known = 0  # leading blocks that are computed, or that another prompt brings or brought
        self.unit_tokens = unit_tokens
        self.tail_tokens = tail_tokens
        self.held = True  # a request runs or waits: SGLang locks what it uses
        self.stored = False
        self.counted_tokens = 0.0  # its part of the image's sums
        self.used_at = 0  # the tick of its release
        self.used_s = 0.0

    @property
    def end(self) -> int:
        return self.base + len(self.blocks)

    @property
    def tokens(self) -> float:
        end = self.base + len(self.blocks)
        tokens = self.tail_tokens
        if end > self.first:
            tokens += (units_until(end) - units_until(self.first)) * self.unit_tokens
        return max(tokens, LEAST_ENTRY_TOKENS)


@mypyc_attr(acyclic=True)
class Use:
    """What a use found: leading `found_blocks`, and when stretches of them were used before, as (depth where the
    stretch ends, tick, time), shallowest first. The tick is 0 for what a request in flight holds.
    """

    __slots__ = ("before", "entry", "found_blocks")

    def __init__(self, entry: Entry, found_blocks: int, before: list[tuple[int, int, float]]) -> None:
        self.entry = entry
        self.found_blocks = found_blocks
        self.before = before


class Kept(NamedTuple):
    """An entry as it outlives the image; fields as Entry's."""

    base: int
    first: int
    used_s: float
    unit_tokens: float
    tail_tokens: float
    blocks: Sequence[int]


class CacheImage:
    """At most `capacity_tokens` and `capacity_blocks`, except for what is held. `evicted` is told every entry
    that goes for want of room, just before.
    """

    def __init__(
        self,
        capacity_tokens: float,
        capacity_blocks: int,
        evicted: Callable[[Entry], None] | None = None,
    ) -> None:
        self.capacity_tokens = capacity_tokens
        self.capacity_blocks = capacity_blocks
        self.size_tokens = 0.0
        self.held_tokens = 0.0
        self._evicted = evicted
        self._owner: dict[Block, Entry] = {}
        self._recent: OrderedDict[int, Entry] = OrderedDict()  # by tick; without what is held
        self._first: Entry | None = None  # of _recent, the last time somebody asked
        self._held: dict[Entry, None] = {}  # in order, so that equal runs are equal
        self._tick = 0

    @property
    def size_blocks(self) -> int:
        return len(self._owner)

    def match(self, blocks: list[Block]) -> int:
        """How many leading blocks are there. Reads only; O(log blocks), because prefixes are stored whole."""
        owner = self._owner
        high = len(blocks) - 1
        if high < 0 or blocks[0] not in owner:
            return 0
        if blocks[high] in owner:
            return high + 1
        low = 0  # blocks[low] is there, blocks[high] is not
        while low + 1 < high:
            middle = (low + high) // 2
            if blocks[middle] in owner:
                low = middle
            else:
                high = middle
        return high

    def oldest(self) -> Entry | None:
        """The entry that goes next; where all are held, the one held for longest; None when nothing is stored."""
        entry = self._least_recent()
        return entry if entry is not None else next((held for held in self._held if held.stored), None)

    def use(
        self, blocks: list[Block], unit_tokens: float, tail_tokens: float, at_s: float = 0.0, found: int | None = None
    ) -> Use:
        """A request uses this prompt: all of it becomes the most recent, and is held until `release`. `found` is what
        `match` says of it, for who has asked. O(blocks).
        """
        entry = Entry(blocks, unit_tokens, tail_tokens)
        entry.used_s = at_s
        self._held[entry] = None
        there = self.match(blocks) if found is None else found
        before = self._take(entry, there)
        self._shrink()
        return Use(entry, there, before)

    def reuse(self, entry: Entry, at_s: float = 0.0) -> None:
        """The worker has computed the prompt. Only while held: what it shares belongs to a prompt that is held too."""
        entry.used_s = at_s
        if not entry.stored:
            self._take(entry, self.match(entry.blocks))
            self._shrink()
        entry.known = entry.end

    def grow(self, entry: Entry, tail_tokens: float) -> None:
        """Besides its blocks, the entry now takes `tail_tokens`."""
        entry.tail_tokens = tail_tokens
        self._count(entry)
        self._shrink()

    def release(self, entry: Entry) -> None:
        """No request holds the entry any longer: it may be evicted, but for what other held prompts share with it."""
        if not entry.held:
            return
        entry.held = False
        self._held.pop(entry, None)
        self.held_tokens = self.held_tokens - entry.counted_tokens if self._held else 0.0
        if entry.stored:
            self._tick += 1
            entry.used_at = self._tick
            self._recent[self._tick] = entry
            heir = self._heir(entry)
            if heir is not None:
                self._take(heir, heir.first if heir.stored else self.match(heir.blocks))
            if entry.stored:
                self._trim(entry)
        self._shrink()

    def forget_until(self, used_at: int) -> None:
        """Drop what was last used at tick `used_at` or before and is not held: the worker has evicted it, as it would
        have evicted anything older first.
        """
        while (entry := self._least_recent()) is not None and entry.used_at <= used_at:
            self._drop(entry)

    def cut(self, entry: Entry) -> None:
        """The request ended before its prompt was computed: what nobody else has used goes. Only while held."""
        keep = max(entry.known, entry.first)
        if not entry.stored or keep >= entry.end:
            return
        for block in entry.blocks[keep:]:
            self._owner.pop(block, None)
        entry.blocks = entry.blocks[:keep]
        entry.tail_tokens = 0.0
        self._count(entry)

    def clear(self) -> None:
        """Forget everything."""
        for entry in (*self._recent.values(), *self._held):
            entry.stored = False
            entry.counted_tokens = 0.0
        self._owner.clear()
        self._recent.clear()
        self.size_tokens = self.held_tokens = 0.0

    def kept(self) -> list[Kept]:
        """What `restore` takes: all entries that are computed, those used last at the end. Reads only."""
        held = sorted((one for one in self._held if one.stored and one.known >= one.end), key=lambda one: one.used_s)
        return [
            Kept(one.base, one.first, one.used_s, one.unit_tokens, one.tail_tokens, list(one.blocks))
            for one in (*self._recent.values(), *held)
        ]

    def restore(self, kept: Iterable[Kept]) -> None:
        """Start from what another image kept, with nothing held. Raises ValueError, and is then empty, where an entry
        begins past its end or two own the same block.
        """
        self.clear()
        for one in kept:
            entry = Entry(list(one.blocks), one.unit_tokens, one.tail_tokens)
            entry.base, entry.first, entry.used_s = one.base, one.first, one.used_s
            own = one.blocks[max(0, one.first - one.base) :]
            if not one.base <= one.first <= entry.end or not self._owner.keys().isdisjoint(own):
                self.clear()
                raise ValueError("prompts contradict each other")
            self._owner.update(zip(own, repeat(entry)))
            self._tick += 1
            entry.used_at = self._tick
            entry.known, entry.held, entry.stored = entry.end, False, True
            self._recent[self._tick] = entry
            self._count(entry)
        self._shrink()

    def locked(self, blocks: list[Block], found: int) -> int:
        """Of the `found` leading blocks that are here, how many no eviction can take now. Reads only; O(log found)."""
        owner = self._owner
        low, high = -1, found  # blocks[low] is locked, blocks[high] is not
        while low + 1 < high:
            middle = (low + high) // 2
            holder = owner.get(blocks[middle])
            if holder is not None and holder.held:
                low = middle
            else:
                high = middle
        return high

    def _heir(self, entry: Entry) -> Entry | None:
        """The held prompt with most of the blocks that this one owns. O(held)."""
        blocks, first = entry.blocks, entry.first
        if first >= len(blocks):
            return None
        block, shared, heir = blocks[first], first, None
        for other in self._held:
            theirs = other.blocks
            if first < len(theirs) and theirs[first] == block and (common := _common(blocks, theirs, first)) > shared:
                shared, heir = common, other
        return heir

    def _count(self, entry: Entry) -> None:
        """Brings the sums up to date with what the entry takes now."""
        tokens = entry.tokens if entry.stored else 0.0
        more_tokens = tokens - entry.counted_tokens
        entry.counted_tokens = tokens
        self.size_tokens += more_tokens
        if entry.held:
            self.held_tokens += more_tokens

    def _take(self, entry: Entry, found: int) -> list[tuple[int, int, float]]:
        """Makes `entry`, which is held, the owner of all its blocks, of which others own the first `found`. Its list of
        blocks must be whole.
        """
        blocks, owner = entry.blocks, self._owner
        limit = found if entry.stored else len(blocks)
        before: list[tuple[int, int, float]] = []
        depth = 0
        while depth < found:
            holder = owner.get(blocks[depth])
            if holder is None:  # only where block hashes are not chained, against the contract
                depth += 1
                continue
            end = self._end_of(holder, blocks, depth, found)
            before.append((end, 0 if holder.held else holder.used_at, holder.used_s))
            self._lose(holder, end)
            depth = end
        entry.known = max(entry.known, depth)
        for block in blocks[:limit] if limit < len(blocks) else blocks:
            owner[block] = entry
        entry.first = 0
        entry.stored = True
        self._count(entry)
        return before

    def _end_of(self, holder: Entry, blocks: list[Block], depth: int, limit: int) -> int:
        """Where the stretch of `blocks` that `holder` owns, from `depth` on, ends."""
        owner = self._owner
        if owner.get(blocks[limit - 1]) is holder:
            return limit
        low, high = depth, limit - 1
        while low + 1 < high:
            middle = (low + high) // 2
            if owner.get(blocks[middle]) is holder:
                low = middle
            else:
                high = middle
        return high

    def _lose(self, holder: Entry, first: int) -> None:
        """`holder` keeps only what is deeper than `first`."""
        holder.first = first
        if first >= holder.end and not holder.held:
            # A longer prompt took all of it. Its answer, if any, is part of that prompt now, or soon evicted.
            holder.stored = False
            del self._recent[holder.used_at]
        elif not holder.held:
            self._trim(holder)
        self._count(holder)

    @staticmethod
    def _trim(entry: Entry) -> None:
        """Lets go of the blocks that newer entries own, once they are a quarter of the list."""
        cut = entry.first - entry.base
        if cut * 4 > len(entry.blocks):
            entry.blocks = entry.blocks[cut:]
            entry.base = entry.first

    def _shrink(self) -> None:
        while self.size_tokens > self.capacity_tokens or len(self._owner) > self.capacity_blocks:
            entry = self._least_recent()
            if entry is None:
                return
            if self._evicted is not None and entry.first < entry.end:
                self._evicted(entry)
            self._drop(entry)

    def _least_recent(self) -> Entry | None:
        """The first of what is not held: it stays the first until it goes. Asked for every worker of a decision."""
        first = self._first
        if first is None or not first.stored:
            first = self._first = next(iter(self._recent.values()), None)
        return first

    def _drop(self, entry: Entry) -> None:
        owner = self._owner
        for block in entry.blocks[entry.first - entry.base :]:
            if block in owner:
                del owner[block]
        entry.stored = False
        self._count(entry)
        del self._recent[entry.used_at]


def _common(one: list[Block], other: list[Block], least: int) -> int:
    """How many leading blocks two whole prompts share; 0 if it is not more than `least`. O(log blocks): the hashes are
    chained, so an equal block means that all before it are equal.
    """
    high = min(len(one), len(other))
    if least >= high or one[least] != other[least]:
        return 0
    if one[high - 1] == other[high - 1]:
        return high
    low = least
    high -= 1
    while low + 1 < high:
        middle = (low + high) // 2
        if one[middle] == other[middle]:
            low = middle
        else:
            high = middle
    return high
