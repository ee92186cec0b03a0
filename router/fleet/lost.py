"""Requests that a worker has lost while it goes on with others: it counts fewer than wait there for their first byte.

What a load report counts (running and waiting) is at least what has been waiting since before that report. Where a
report counted less, the difference will never be answered, whatever the worker's probes say. Only reports that say the
same as the one before count: a request whose long prompt is being read in chunks may be in neither number, but it moves
the tokens in use. Pure: reports bring the time. Owned and told by fleet.judge. Not here: a worker of which nothing
moves any more (vitals).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from router.fleet.call_off import Waiting
from router.types import LoadReport

DOUBT_S = 2.0
"""An idle worker that owes a first byte for so long gets no new requests: two reports at their usual interval."""


class LostRequests:
    """One worker's. Looks in spans of `patience_s` at what waits all through one, so that a request is found lost
    after one to two of them. A span must be longer than what a server does before it counts a request (tokenizing,
    loading images)."""

    __slots__ = ("_began_s", "_least", "_oldest", "_oldest_s", "_patience_s", "_suspects", "doubtful")

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._suspects: Sequence[Waiting] = ()
        self._began_s = 0.0
        self._least = 0
        self._oldest: Waiting | None = None
        self._oldest_s = 0.0
        self.doubtful = False
        """Whether it has been idle by its own account for DOUBT_S while one and the same request waits there."""

    def reported(self, load: LoadReport, unanswered: Collection[Waiting], *, moved: bool) -> Sequence[Waiting]:
        """Those of `unanswered`, the requests without a first byte, oldest first, that are found lost just now.

        Which of several is lost cannot be seen: the oldest are named, as many as are missing. `moved`: whether any of
        the report's figures differs from the one before.
        """
        held = load.running + load.waiting
        self._doubt(load.at_s, None if held or moved else next(iter(unanswered), None))
        if not any(each in unanswered for each in self._suspects):
            self._begin(load.at_s, unanswered)
            return ()
        if not moved:
            self._least = min(self._least, held)
        if load.at_s - self._began_s < self._patience_s:
            return ()
        waiting = [each for each in self._suspects if each in unanswered]
        lost = waiting[: max(0, len(waiting) - self._least)]
        self._begin(load.at_s, [each for each in unanswered if each not in lost])
        return lost

    def _doubt(self, now_s: float, oldest: Waiting | None) -> None:
        """`oldest` waits although nothing runs or waits there; None if none does."""
        if oldest is not self._oldest:
            self._oldest, self._oldest_s = oldest, now_s
        self.doubtful = oldest is not None and now_s - self._oldest_s >= DOUBT_S

    def _begin(self, now_s: float, unanswered: Collection[Waiting]) -> None:
        self._suspects, self._began_s, self._least = tuple(unanswered), now_s, 2**60
