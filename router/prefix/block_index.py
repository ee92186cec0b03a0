"""Exact contents of workers' KV caches: which marked blocks each holds, from their own stored and removed events.

Data only: no policy, no I/O, no clock. Hashes are chained and start from the namespace's salt, so one number names a
block, everything before it and its namespace. `match` reads; the rest writes, called by fleet.kv_events.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from router.prefix.page_hash import Mark
from router.types import WorkerId


class BlockIndex:
    """Sets of block hashes, one per worker; about 70 bytes a block."""

    def __init__(self) -> None:
        self._held: dict[WorkerId, set[int]] = {}

    def match(self, worker: WorkerId, marks: Sequence[Mark]) -> int:
        """Tokens up to the end of the deepest of these blocks that the worker holds; 0 when it holds none.

        A radix cache evicts leaves first: who holds a block holds all before it, also what was stored before we
        listened. O(marks), at the speed of a set intersection.
        """
        held = self._held.get(worker)
        if not held or not marks:
            return 0
        found = held.intersection([value for _, value in marks])
        if not found:
            return 0
        return next(depth for depth, value in reversed(marks) if value in found)

    def store(self, worker: WorkerId, hashes: Iterable[int]) -> None:
        """These blocks are there now."""
        held = self._held.get(worker)
        if held is None:
            held = self._held[worker] = set()
        held.update(hashes)

    def remove(self, worker: WorkerId, hashes: Iterable[int]) -> None:
        """These blocks are gone; those never heard of are ignored."""
        held = self._held.get(worker)
        if held is not None:
            held.difference_update(hashes)

    def clear(self, worker: WorkerId) -> None:
        """Nothing is there any more, or nothing is known of it any more."""
        self._held.pop(worker, None)

    def size_blocks(self, worker: WorkerId) -> int:
        """Blocks known to be there."""
        return len(self._held.get(worker, ()))
