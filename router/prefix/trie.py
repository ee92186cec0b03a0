"""The approximate prefix trie of one worker: which prompts its KV cache probably holds. Bounded in blocks.

A pygtrie over block hashes. `match` reads; `insert`, `truncate` and `clear` write. Eviction mirrors SGLang's
RadixCache: the least recently used prompt loses the tail that it shares with no other prompt.
No policy, no I/O, no clock. Called by prefix.index.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import pygtrie

Blocks = tuple[int, ...]


class PrefixTrie:
    """A bounded set of prompts, each a sequence of chained block hashes.

    The trie's values mark where a prompt ends. Because hashes are chained, a prompt's last hash names it: `_recent`
    maps it to the prompt, least recently used first.
    """

    def __init__(self, capacity_blocks: int) -> None:
        self.capacity_blocks = capacity_blocks
        self.size_blocks = 0
        self.evicted_blocks = 0
        self._trie: pygtrie.Trie[Blocks, bool, int] = pygtrie.Trie()
        self._recent: OrderedDict[int, Blocks] = OrderedDict()

    def match(self, blocks: Sequence[int]) -> int:
        """How many leading blocks are stored. O(match). Reads only."""
        depth = -1  # the walk yields the root first
        try:
            for _ in self._trie.walk_towards(tuple(blocks)):
                depth += 1
        except KeyError:
            pass
        return max(depth, 0)

    def insert(self, blocks: Sequence[int]) -> None:
        """Store a prompt as the most recently used one, and evict until the bound holds. O(blocks).

        A prompt longer than the whole bound is cut to it.
        """
        prompt = tuple(blocks[: self.capacity_blocks])
        if not prompt:
            return
        if prompt[-1] not in self._recent:
            self._absorb_prefix(prompt)
            self.size_blocks += len(prompt) - self.match(prompt)
            self._trie[prompt] = True
            self._recent[prompt[-1]] = prompt
        self._recent.move_to_end(prompt[-1])
        while self.size_blocks > self.capacity_blocks:
            _, oldest = self._recent.popitem(last=False)
            self.evicted_blocks += self._forget(oldest)

    def truncate(self, blocks: Sequence[int], keep_blocks: int) -> int:
        """Forget everything stored below the first `keep_blocks` of this prompt; returns how many blocks went.

        Called when a worker reports fewer cached tokens than predicted: what follows is not there either.
        """
        prompt = tuple(blocks[: keep_blocks + 1])
        if len(prompt) <= keep_blocks or self.match(prompt) <= keep_blocks:
            return 0
        gone = self._trie.keys(prefix=prompt)
        removed = 0
        for stored in gone:
            del self._recent[stored[-1]]
            removed += self._forget(stored)
        kept = prompt[:keep_blocks]
        if kept:
            before = self.size_blocks
            self.insert(kept)
            removed -= self.size_blocks - before
        return removed

    def prompts(self) -> list[Blocks]:
        """The stored prompts, least recently used first: inserted again in this order they make the same trie."""
        return list(self._recent.values())

    def clear(self) -> None:
        """Forget all prompts."""
        self._trie.clear()
        self._recent.clear()
        self.size_blocks = 0

    def _absorb_prefix(self, prompt: Blocks) -> None:
        """Drop the stored prompt that `prompt` extends (a conversation's last turn): its blocks live on in the new
        one, and keeping every turn would cost memory quadratic in the length of a conversation."""
        shorter = self._trie.longest_prefix(prompt)
        if shorter:
            key: Blocks = shorter.key
            del self._recent[key[-1]]
            self.size_blocks -= len(key)
            del self._trie[key]
            self.size_blocks += self.match(key)

    def _forget(self, prompt: Blocks) -> int:
        """Remove the prompt's mark and the tail that no other prompt shares; returns how many blocks went."""
        del self._trie[prompt]
        removed = len(prompt) - self.match(prompt)
        self.size_blocks -= removed
        return removed
