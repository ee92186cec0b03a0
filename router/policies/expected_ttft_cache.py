"""What expected_ttft believes of one worker's KV cache: an image of what it holds, its size, and what was evicted.

The size starts from a guess or from what the worker reports, and moves with every report of cached tokens that the
image did not expect. Called by expected_ttft_worker and expected_ttft. Not here: the image itself (prefix.cache_image).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from router.prefix.block_hash import Block
from router.prefix.block_sizes import depth_within
from router.prefix.cache_image import CacheImage, Entry, Use

MOST_EVICTED: Final = 8192
"""Evicted prompts remembered per worker, at most."""
LEAST_TOKENS: Final = 1024
MOST_TOKENS: Final = 10**9
"""A worker that reports a capacity outside of these is not believed."""


class CacheBelief:
    """One worker's. `capacity_tokens` is where learning starts until the worker reports its own."""

    __slots__ = (
        "_evicted_tokens", "base_capacity_tokens", "capacity_is_reported", "evicted", "factor", "image",
        "reports_cache", "unwanted",
    )  # fmt: skip

    def __init__(self, capacity_tokens: float, capacity_blocks: int) -> None:
        self.image = CacheImage(capacity_tokens, capacity_blocks, self._note_eviction)
        self.evicted: OrderedDict[Block, tuple[float, float]] = OrderedDict()  # first block: tokens, time of last use
        self._evicted_tokens = 0.0
        self.unwanted: list[tuple[float, float]] = []  # tokens and times of what nobody asked for; the policy takes it
        self.reports_cache = False
        self.capacity_is_reported = False
        self.base_capacity_tokens = capacity_tokens
        self.factor = 1.0

    def capacity_reported(self, tokens: int) -> None:
        """The worker's own figure; absurd ones are not taken."""
        known = self.capacity_is_reported and tokens == self.base_capacity_tokens
        if LEAST_TOKENS <= tokens <= MOST_TOKENS and not known:
            self.base_capacity_tokens = float(tokens)
            self.factor = min(self.factor, 1.0) if self.capacity_is_reported else 1.0
            self.capacity_is_reported = True
            self._resize(shrink=None)

    def set_capacity(self, tokens: float, factor: float, *, reported: bool) -> None:
        """What was believed before a restart: the worker's own figure or our guess, and how much of it is seen."""
        self.base_capacity_tokens = tokens
        self.factor = factor
        self.capacity_is_reported = reported
        self._resize(shrink=None)

    def cached_reported(
        self, use: Use, cached_tokens: float, expected_tokens: float, unit_tokens: float, slack_tokens: float,
        *, evicted_before: bool,
    ) -> None:  # fmt: skip
        """The worker says how much of the prompt it had. Corrects the image and what is believed of its size."""
        if cached_tokens > 0:
            self.reports_cache = True
        if cached_tokens < expected_tokens - slack_tokens:
            keep = depth_within(int(cached_tokens / unit_tokens))
            tick = next((used_at for end, used_at, _ in use.before if end > keep), 0) if self.reports_cache else 0
            if tick:
                self.image.forget_until(tick)
                self._resize(shrink=True)
        elif evicted_before and cached_tokens > expected_tokens + slack_tokens:
            self._resize(shrink=False)

    def clear(self) -> None:
        """The worker's cache is empty."""
        self.image.clear()
        self.evicted.clear()
        self._evicted_tokens = 0.0

    def would_have_known(self, blocks: list[Block], found: int) -> bool:
        """Whether more of this prompt than `found` blocks would be matched if the image were larger. Reads only."""
        return found < len(blocks) and blocks[found] in self.evicted

    def asked_again(self, block: Block) -> tuple[float, float]:
        """Tokens and time of the last use of an evicted entry, which starts with this block. It is forgotten."""
        gone = self.evicted.pop(block)
        self._evicted_tokens -= gone[0]
        return gone

    def _resize(self, *, shrink: bool | None) -> None:
        low, high = (0.5, 1.2) if self.capacity_is_reported else (0.02, 50.0)
        if shrink is not None:
            self.factor *= 0.97 if shrink else 1.03
        if shrink and not self.capacity_is_reported and self.image.size_tokens > 0.0:
            target = self.image.size_tokens / self.base_capacity_tokens
            self.factor -= 0.3 * max(0.0, self.factor - target)
        self.factor = max(low, min(high, self.factor))
        self.image.capacity_tokens = self.base_capacity_tokens * self.factor

    def _note_eviction(self, entry: Entry) -> None:
        """Remember what went, for about two more turnovers of the cache, to see whether it is asked for again."""
        block = entry.blocks[entry.first - entry.base]
        if block in self.evicted:
            self.asked_again(block)
        tokens = entry.tokens
        self.evicted[block] = (tokens, entry.used_s)
        self._evicted_tokens += tokens
        while self._evicted_tokens > 2 * self.image.capacity_tokens or len(self.evicted) > MOST_EVICTED:
            _, gone = self.evicted.popitem(last=False)
            self._evicted_tokens -= gone[0]
            self.unwanted.append(gone)
