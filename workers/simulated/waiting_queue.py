"""Requests that wait for their first prefill or, retracted, for another: their order. Called by engine.py.

FCFS keeps arrival order. LPM puts the longest cached prefix first, and among requests that would share a prefix not yet
cached, holds all but the first back, as SGLang's srt/managers/schedule_policy.py does (read at 0.5.x).
"""

from __future__ import annotations

from collections.abc import Iterator

from workers.simulated.kv_memory import KvMemory
from workers.simulated.radix_cache import RadixCache
from workers.simulated.request_state import RequestState

LPM_LIMIT = 128
"""With more requests waiting, SGLang's LPM keeps arrival order: matching them all would cost too much."""
SHARED_TOKENS = 32
"""SGLang looks for prefixes shared within the queue where at most this many tokens are cached, and holds a request
back when at least this many are shared."""


class WaitingQueue:
    """Waiting requests. `lpm` chooses the order."""

    def __init__(self, *, lpm: bool) -> None:
        self._lpm = lpm
        self._states: list[RequestState] = []

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[RequestState]:
        return iter(self._states)

    def append(self, state: RequestState) -> None:
        self._states.append(state)

    def remove(self, state: RequestState) -> None:
        """Takes out one that waits."""
        self._states.remove(state)

    def drop(self, count: int) -> None:
        """Takes out the first `count`."""
        del self._states[:count]

    def order(self, memory: KvMemory) -> None:
        """Puts next what should run next."""
        if not self._lpm or not 1 < len(self._states) <= LPM_LIMIT:
            return
        seen = RadixCache()
        ranks: dict[str, float] = {}
        for state in self._states:
            request = state.request
            matched: float = memory.matched_tokens(state)
            if matched <= SHARED_TOKENS:
                whole = min(len(request.pages), state.fill_tokens // memory.page_size)
                if seen.peek(request.namespace, request.pages, whole) * memory.page_size >= SHARED_TOKENS:
                    matched = float("-inf")
                else:
                    seen.insert(request.namespace, request.pages, whole)
            ranks[request.rid] = -matched
        self._states.sort(key=lambda state: ranks[state.request.rid])
