"""What one worker's KV cache probably holds, as far as its requests tell: an image of SGLang's RadixCache, in tokens.

Prompts are kept in the order in which the worker last used them. A use takes every block of the prompt over from
earlier users, so each block belongs to the last prompt that used it, and what an older prompt still owns is always the
end of it, a leaf of SGLang's tree. Eviction drops those ends, least recently used first, until the bound holds.
`match` reads; all else writes. No policy, no I/O, no clock. Called by policies (expected_ttft).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat

LEAST_ENTRY_TOKENS = 16.0
"""A prompt counts for at least this much, so that a bound in tokens also bounds how many prompts are kept."""


class Entry:
    """One prompt as it was last used. Opaque to callers, who keep it between `use` and `release`.

        depth      0        first        first + owned        len(blocks)
                   | newer   |  this entry's own blocks         | tail: partial block and answer
    """

    __slots__ = (
        "base", "block_tokens", "blocks", "first", "held", "known", "stored", "tail_tokens", "used_at", "used_s",
    )  # fmt: skip

    def __init__(self, blocks: Sequence[int], block_tokens: float, tail_tokens: float) -> None:
        self.blocks = blocks
        self.base = 0  # depth of blocks[0]: what newer entries own is cut off in time
        self.first = 0
        self.known = 0  # leading blocks that are computed, or that another prompt brings or brought
        self.block_tokens = block_tokens
        self.tail_tokens = tail_tokens
        self.held = True  # a request runs or waits: SGLang locks what it uses
        self.stored = False
        self.used_at = 0
        self.used_s = 0.0

    @property
    def end(self) -> int:
        return self.base + len(self.blocks)

    @property
    def tokens(self) -> float:
        own = self.end - self.first
        return max((own * self.block_tokens if own > 0 else 0.0) + self.tail_tokens, LEAST_ENTRY_TOKENS)


@dataclass(frozen=True, slots=True)
class Use:
    """What a use found: leading `found_blocks`, and when stretches of them were used before, as (depth where the
    stretch ends, tick, time), shallowest first. The tick is 0 for what a request in flight holds.
    """

    entry: Entry
    found_blocks: int
    before: tuple[tuple[int, int, float], ...]


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
        self._owner: dict[int, Entry] = {}
        self._recent: OrderedDict[int, Entry] = OrderedDict()
        self._held: dict[Entry, None] = {}  # in order, so that equal runs are equal
        self._tick = 0

    @property
    def size_blocks(self) -> int:
        return len(self._owner)

    def match(self, blocks: Sequence[int]) -> int:
        """How many leading blocks are there. Reads only; O(log blocks), because prefixes are stored whole."""
        owner = self._owner
        if not blocks or blocks[0] not in owner:
            return 0
        if blocks[-1] in owner:
            return len(blocks)
        low, high = 0, len(blocks) - 1  # blocks[low] is there, blocks[high] is not
        while low + 1 < high:
            middle = (low + high) // 2
            if blocks[middle] in owner:
                low = middle
            else:
                high = middle
        return high

    def oldest(self) -> Entry | None:
        """The entry that goes next, unless it is held; None when nothing is stored."""
        return next(iter(self._recent.values()), None)

    def use(self, blocks: Sequence[int], block_tokens: float, tail_tokens: float, at_s: float = 0.0) -> Use:
        """A request uses this prompt: all of it becomes the most recent, and is held until `release`. O(blocks)."""
        entry = Entry(blocks, block_tokens, tail_tokens)
        entry.used_s = at_s
        self._held[entry] = None
        found, before = self._take(entry)
        self._shrink()
        return Use(entry, found, tuple(before))

    def reuse(self, entry: Entry, at_s: float = 0.0) -> None:
        """The worker has computed the prompt: it is the most recent again. Only while held."""
        entry.used_s = at_s
        self._take(entry)
        entry.known = entry.end
        self._shrink()

    def grow(self, entry: Entry, tail_tokens: float) -> None:
        """Besides its blocks, the entry now takes `tail_tokens`."""
        self._count(entry, -1)
        entry.tail_tokens = tail_tokens
        self._count(entry, 1)
        self._shrink()

    def release(self, entry: Entry) -> None:
        """No request holds the entry any longer: it may be evicted, but for what other held prompts share with it."""
        if not entry.held:
            return
        self._count(entry, -1)
        entry.held = False
        self._held.pop(entry, None)
        self._count(entry, 1)
        shared, heir = 0, None
        for other in self._held:
            common = _common(entry.blocks, other.blocks, entry.first)
            if common > shared:
                shared, heir = common, other
        if heir is not None and entry.stored:
            self._take(heir)
        if entry.stored:
            self._trim(entry)
        self._shrink()

    def forget_until(self, used_at: int) -> None:
        """Drop what was last used at tick `used_at` or before and is not held: the worker has evicted it, as it would
        have evicted anything older first.
        """
        while self._recent:
            entry = next(iter(self._recent.values()))
            if entry.used_at > used_at:
                return
            if entry.held:
                self._take(entry)
            else:
                self._drop(entry)

    def cut(self, entry: Entry) -> None:
        """The request ended before its prompt was computed: what nobody else has used goes. Only while held."""
        keep = max(entry.known, entry.first)
        if not entry.stored or keep >= entry.end:
            return
        self._count(entry, -1)
        for block in entry.blocks[keep:]:
            self._owner.pop(block, None)
        entry.blocks = entry.blocks[:keep]
        entry.tail_tokens = 0.0
        self._count(entry, 1)

    def clear(self) -> None:
        """Forget everything."""
        for entry in self._recent.values():
            entry.stored = False
        self._owner.clear()
        self._recent.clear()
        self.size_tokens = self.held_tokens = 0.0

    def locked(self, blocks: Sequence[int], found: int) -> int:
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

    def _count(self, entry: Entry, sign: int) -> None:
        """Adds (1) or takes off (-1) what the entry takes now, if it is stored."""
        if entry.stored:
            tokens = sign * entry.tokens
            self.size_tokens += tokens
            if entry.held:
                self.held_tokens += tokens

    def _take(self, entry: Entry) -> tuple[int, list[tuple[int, int, float]]]:
        """Makes `entry` the most recent owner of all its blocks. Its list of blocks must be whole."""
        blocks, owner = entry.blocks, self._owner
        if entry.stored:
            limit = found = entry.first
            self._count(entry, -1)
            del self._recent[entry.used_at]
        else:
            limit, found = len(blocks), self.match(blocks)
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
        owner.update(zip(blocks[:limit] if limit < len(blocks) else blocks, repeat(entry)))
        self._tick += 1
        entry.first = 0
        entry.used_at = self._tick
        entry.stored = True
        self._recent[self._tick] = entry
        self._count(entry, 1)
        return found, before

    def _end_of(self, holder: Entry, blocks: Sequence[int], depth: int, limit: int) -> int:
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
        self._count(holder, -1)
        holder.first = first
        if first >= holder.end and not holder.held:
            # A longer prompt took all of it. Its answer, if any, is part of that prompt now, or soon evicted.
            holder.stored = False
            del self._recent[holder.used_at]
            return
        self._count(holder, 1)
        if not holder.held:
            self._trim(holder)

    @staticmethod
    def _trim(entry: Entry) -> None:
        """Lets go of the blocks that newer entries own, once they are half of the list."""
        cut = entry.first - entry.base
        if cut * 2 > len(entry.blocks):
            entry.blocks = entry.blocks[cut:]
            entry.base = entry.first

    def _shrink(self) -> None:
        newest = self._tick
        while self.size_tokens > self.capacity_tokens or len(self._owner) > self.capacity_blocks:
            if not self._recent:
                return
            entry = next(iter(self._recent.values()))
            if entry.used_at > newest:
                return  # all that is left is held
            if entry.held:
                self._take(entry)
                continue
            if self._evicted is not None and entry.first < entry.end:
                self._evicted(entry)
            self._drop(entry)

    def _drop(self, entry: Entry) -> None:
        owner = self._owner
        for block in entry.blocks[entry.first - entry.base :]:
            owner.pop(block, None)
        self._count(entry, -1)
        entry.stored = False
        del self._recent[entry.used_at]


def _common(one: Sequence[int], other: Sequence[int], least: int) -> int:
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
