"""The prompt blocks that one worker was sent, in order of use. Data only: no policy, no I/O, no clock.

A flat stand-in for the trees of other routers (policies smg_cache_aware, dynamo_cost, llmd_weighted,
production_stack_prefix). Because hashes are chained, a block is stored only while all blocks before it are: a prompt's
blocks are used last one first, so the oldest block is always a leaf, and dropping the oldest is LRU of leaves. Blocks
grow with their depth (block_sizes), so a bound is one of blocks or of units of the prompt.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from router.prefix.block_sizes import units_of


class RecentBlocks:
    """Block hash -> the mark of its last use, and its depth. Marks never decrease from one `insert` to the next."""

    def __init__(self) -> None:
        self._marks: OrderedDict[int, tuple[float, int]] = OrderedDict()
        self.size_units = 0

    def __len__(self) -> int:
        return len(self._marks)

    def match(self, blocks: Sequence[int], since: float = float("-inf")) -> int:
        """How many leading blocks are stored with a mark of `since` or later. O(log blocks). Reads only."""
        low, high = 0, len(blocks)
        while low < high:
            middle = (low + high + 1) // 2
            found = self._marks.get(blocks[middle - 1])
            if found is not None and found[0] >= since:
                low = middle
            else:
                high = middle - 1
        return low

    def mark(self, block: int) -> float | None:
        """The mark of a stored block."""
        found = self._marks.get(block)
        return None if found is None else found[0]

    def insert(self, blocks: Sequence[int], mark: float) -> None:
        """Store a prompt as used now. O(blocks)."""
        marks = self._marks
        for depth in range(len(blocks), 0, -1):
            block = blocks[depth - 1]
            if block not in marks:
                self.size_units += units_of(depth)
            marks[block] = (mark, depth)
            marks.move_to_end(block)

    def trim(self, capacity_blocks: int) -> int:
        """Drop the least recently used leaves until the bound holds; returns how many blocks went."""
        gone = max(0, len(self._marks) - capacity_blocks)
        for _ in range(gone):
            self._drop()
        return gone

    def trim_units(self, capacity_units: int) -> int:
        """The same with a bound in units of the prompt."""
        gone = 0
        while self.size_units > capacity_units:
            self._drop()
            gone += 1
        return gone

    def expire(self, before: float) -> int:
        """Drop what was last used before `before`; returns how many blocks went."""
        gone = 0
        while self._marks and next(iter(self._marks.values()))[0] < before:
            self._drop()
            gone += 1
        return gone

    def _drop(self) -> None:
        _, (_, depth) = self._marks.popitem(last=False)
        self.size_units -= units_of(depth)
