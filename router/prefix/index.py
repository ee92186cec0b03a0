"""One prefix trie per worker, behind one interface. Data only: no policy, no I/O, no clock.

`match` reads; every other method writes and is called from a policy's `observe`.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.prefix.trie import PrefixTrie
from router.types import WorkerId, Workers


class PrefixIndex:
    """Which worker has probably cached which prefix. At most `capacity_blocks` per worker."""

    def __init__(self, capacity_blocks: int) -> None:
        self._capacity_blocks = capacity_blocks
        self._tries: dict[WorkerId, PrefixTrie] = {}

    def match(self, blocks: Sequence[int], workers: Workers) -> list[int]:
        """Matched leading blocks for each of `workers`, in their order."""
        if not blocks:
            return [0] * len(workers)
        tries = self._tries
        return [tries[worker.id].match(blocks) if worker.id in tries else 0 for worker in workers]

    def insert(self, worker: WorkerId, blocks: Sequence[int]) -> None:
        if worker not in self._tries:
            self._tries[worker] = PrefixTrie(self._capacity_blocks)
        self._tries[worker].insert(blocks)

    def truncate(self, worker: WorkerId, blocks: Sequence[int], keep_blocks: int) -> int:
        """Forget what follows the first `keep_blocks` of this prompt there; returns how many blocks went."""
        trie = self._tries.get(worker)
        return 0 if trie is None else trie.truncate(blocks, keep_blocks)

    def forget(self, worker: WorkerId) -> None:
        """Drop everything known of the worker."""
        self._tries.pop(worker, None)

    def prompts(self, worker: WorkerId) -> list[tuple[int, ...]]:
        """What is stored of the worker, least recently used first."""
        trie = self._tries.get(worker)
        return [] if trie is None else trie.prompts()

    def size_blocks(self, worker: WorkerId) -> int:
        trie = self._tries.get(worker)
        return 0 if trie is None else trie.size_blocks

    def workers(self) -> tuple[WorkerId, ...]:
        """Workers that something is known of."""
        return tuple(self._tries)
