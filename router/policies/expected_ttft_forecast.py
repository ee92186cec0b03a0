"""What a request's work on one worker costs the requests that come after it: the recent past, expected to come again.

Called by expected_ttft. Not here: what the workers have to do already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heapify, heapreplace

LONGEST_PAUSE_S = 10.0
"""A longer pause between two requests says nothing of the next seconds; clocks may also jump."""


class Forecast:
    """The last `length` dispatches, their distances in time and their seconds of prefill, as the next ones."""

    def __init__(self, length: int) -> None:
        self._last_s: float | None = None
        self._recent: deque[tuple[float, float]] = deque(maxlen=max(length, 1))
        self._coming: list[tuple[float, float]] = []
        self._horizon_s = 0.0

    def dispatched(self, at_s: float, own_s: float) -> None:
        """A request of `own_s` seconds of prefill went out. O(length)."""
        pause_s = 0.0 if self._last_s is None else min(max(at_s - self._last_s, 0.0), LONGEST_PAUSE_S)
        self._last_s = at_s
        self._recent.append((pause_s, own_s))
        at_s = 0.0
        coming = []
        for pause_s, own_s in self._recent:
            at_s += pause_s
            coming.append((at_s, own_s))
        self._coming = coming
        self._horizon_s = at_s

    def waits_s(self, free_s: Sequence[float], later_price: float) -> float:
        """How long the coming requests would wait in all, if worker i is free in `free_s[i]` seconds and each goes
        where it waits least; and `later_price` for every second of work that is left after the last of them.

        Work cannot be avoided by putting it off: without a price for what is left, the longest queue would look best.
        """
        free = list(free_s)
        heapify(free)
        waits_s = 0.0
        for at_s, own_s in self._coming:
            first_s = free[0]
            if first_s > at_s:
                waits_s += first_s - at_s
                heapreplace(free, first_s + own_s)
            else:
                heapreplace(free, at_s + own_s)
        if later_price > 0.0:
            end_s = self._horizon_s
            for first_s in free:
                if first_s > end_s:
                    waits_s += later_price * (first_s - end_s)
        return waits_s
