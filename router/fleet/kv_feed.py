"""What one worker's KV events add up to: order, gaps, restarts, and whether the index can be trusted. Pure.

Called by fleet.kv_events, which owns the sockets. A feed is usable once something was heard, while its connection
stands, its hashes are ours, and nothing is missing: after a gap that cannot be replayed the index starts empty, and
is not trusted until the worker has stored as many tokens as it can hold or says itself that it is empty.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from router.fleet.kv_wire import Cleared, KvEvent, Removed, Stored, events_of, tokens_of
from router.prefix.block_index import BlockIndex
from router.prefix.page_hash import marks_among, page_hashes
from router.types import WorkerId

log = logging.getLogger(__name__)

CHECKS = 3
"""Chains from the root whose hashes are computed again, to know that the server hashes as we do."""


@dataclass(slots=True)
class FeedState:
    """What is told of a feed in `/workers` and metrics. `blocks`: the marked ones known to be there, now and then."""

    connected: bool = False
    heard: bool = False
    catching_up: bool = False
    foreign: bool = False
    complete: bool = True
    gaps: int = 0
    messages: int = 0
    blocks: int = 0

    @property
    def usable(self) -> bool:
        return self.connected and self.heard and self.complete and not (self.catching_up or self.foreign)


class KvFeed:
    """One worker's events into the index. `cleared` is called when the worker says that its cache is empty."""

    def __init__(
        self, worker: WorkerId, page_tokens: int, index: BlockIndex, state: FeedState, cleared: Callable[[], None]
    ) -> None:
        self.worker = worker
        self.page_tokens = page_tokens
        self.state = state
        self.expected: int | None = None
        self.capacity_tokens: int | None = None
        self.history = False  # what is taken now happened before anyone here could rely on it
        self._index = index
        self._cleared = cleared
        self._replayed_below = 0
        self._stored_tokens = 0
        self._checks_left = CHECKS

    def is_old(self, sequence: int) -> bool:
        """Whether this was seen already through a replay."""
        return sequence < self._replayed_below

    def replayed(self, next_sequence: int) -> None:
        """Everything before `next_sequence` has been taken; it may come once more over the live socket."""
        self._replayed_below = next_sequence

    def lost(self) -> None:
        """Messages are gone for good: forget everything, and trust nothing until the cache has turned over."""
        self.state.gaps += 1
        self.state.complete = False
        self._stored_tokens = 0
        self._index.clear(self.worker)
        log.warning("worker %s: KV events are missing; its prefixes are estimated for now", self.worker)

    def restarted(self) -> None:
        """The publisher counts from the start again: it is a new process with an empty cache."""
        self._index.clear(self.worker)
        self._replayed_below = 0
        self.expected = None
        self.state.complete = True
        self._cleared()

    def take(self, sequence: int, payload: bytes) -> None:
        """The next message. Raises ValueError for a payload that is none; the sequence goes on all the same."""
        self.expected = sequence + 1
        if sequence >= self._replayed_below:
            self._replayed_below = 0  # what came twice has come twice
        self.state.heard = True
        self.state.messages += 1
        for event in events_of(payload):
            self._apply(event)

    def _apply(self, event: KvEvent) -> None:
        match event:
            case Stored():
                self._store(event)
            case Removed():
                self._index.remove(self.worker, marks_among(event.hashes, self.page_tokens))
            case Cleared():
                self._index.clear(self.worker)
                self.state.complete = True
                if not self.history:
                    self._cleared()

    def _store(self, event: Stored) -> None:
        if event.other_namespace:
            return
        if event.page_tokens != self.page_tokens:
            self._foreign(f"blocks of {event.page_tokens} tokens where {self.page_tokens} were announced")
            return
        if self._checks_left and event.parent is None:
            self._check(event)
        self._index.store(self.worker, marks_among(event.hashes, self.page_tokens))
        if not self.state.complete:
            self._stored_tokens += len(event.hashes) * self.page_tokens
            if self.capacity_tokens is not None and self._stored_tokens >= self.capacity_tokens:
                self.state.complete = True

    def _check(self, event: Stored) -> None:
        tokens = tokens_of(event)
        if tokens is None:
            self._foreign("blocks of token pairs, as speculative decoding stores them")
            return
        self._checks_left -= 1
        try:
            same = page_hashes(tokens, self.page_tokens, event.salt) == event.hashes
        except OverflowError:
            same = False
        if not same:
            self._foreign("block hashes that are computed in another way")

    def _foreign(self, what: str) -> None:
        if not self.state.foreign:
            log.warning("worker %s publishes %s: its prefixes are estimated", self.worker, what)
        self.state.foreign = True
        self._index.clear(self.worker)
