"""Notices a cache that was emptied behind our back: predictions that were right turn out wrong, all of them.

A worker that was flushed by somebody else, or restarted between two probes, reports no cached tokens where long
matches were expected. A few in a row mean that nothing is there any more; eviction takes some prefixes, never all.
Called by the registry with every event. Not here: what policies learn from one wrong prediction (they prune it).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from router.records import Finished, FleetEvent
from router.types import CacheCleared, WorkerId, WorkerLeft

LONG_MATCH_TOKENS = 256
"""Shorter predictions are worth no alarm: a system prompt's length."""
FOUND_RATIO = 0.02
"""A worker that reports less than this share of the expected match has found nothing: a page or a template's head."""
MISSES_IN_A_ROW = 4
MOST_MISSES = 4096
"""A worker that goes on finding nothing was not emptied again: it has no cache, or reports something else. Each time in
between which nothing was found it takes twice as many misses, up to this."""


class CollapseDetector:
    """Calls `emptied` with a worker's id when its cached tokens collapse."""

    HEARS: ClassVar[tuple[type, ...]] = (Finished, CacheCleared, WorkerLeft)

    def __init__(self, emptied: Callable[[WorkerId], None]) -> None:
        self._emptied = emptied
        self._misses: dict[WorkerId, int] = {}
        self._needed: dict[WorkerId, int] = {}
        self._since_s: dict[WorkerId, float] = {}

    def observe(self, event: FleetEvent) -> None:
        """Count what each finished request says of its worker's cache."""
        match event:
            case Finished():
                self._finished(event)
            case CacheCleared():
                self._misses.pop(event.worker, None)
                self._since_s[event.worker] = event.at_s
            case WorkerLeft():
                self._misses.pop(event.worker, None)
                self._needed.pop(event.worker, None)
                self._since_s.pop(event.worker, None)
            case _:
                pass

    def _finished(self, event: Finished) -> None:
        outcome, worker = event.outcome, event.worker
        decision = outcome.decision
        expected = decision.match_tokens if decision is not None else 0.0
        if outcome.cached_tokens is None or expected < LONG_MATCH_TOKENS:
            return
        if outcome.at_s < self._since_s.get(worker, outcome.at_s):
            return  # predicted before the cache was last emptied
        if outcome.cached_tokens > FOUND_RATIO * expected:
            self._misses.pop(worker, None)
            self._needed.pop(worker, None)
            return
        misses = self._misses[worker] = self._misses.get(worker, 0) + 1
        needed = self._needed.get(worker, MISSES_IN_A_ROW)
        if misses >= needed:
            self._needed[worker] = min(2 * needed, MOST_MISSES)
            self._emptied(worker)
