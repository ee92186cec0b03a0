"""What a request's work on one worker costs the requests that come after it: the recent past, expected to come again.

Called by expected_ttft. Not here: what the workers have to do already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heapify, heapreplace

LONGEST_PAUSE_S = 10.0
"""A longer pause between two requests says nothing of the next seconds; clocks may also jump."""
FAR_S = 1e5
"""Times count from the first dispatch; before they are so large that a double rounds them by more than 1e-11 s, they
count from a later one."""


class Forecast:
    """The last `length` dispatches, their distances in time and their seconds of prefill, as the next ones."""

    __slots__ = ("_coming", "_end_s", "_last_s", "_length", "_start_s")

    def __init__(self, length: int) -> None:
        self._length = max(length, 1)
        self._last_s: float | None = None
        self._coming: deque[tuple[float, float]] = deque()  # when, and how long; this moment is at `_start_s`
        self._start_s = 0.0
        self._end_s = 0.0

    def dispatched(self, at_s: float, own_s: float) -> None:
        """A request of `own_s` seconds of prefill went out."""
        if self._last_s is not None:
            pause_s = at_s - self._last_s
            if pause_s > 0.0:
                self._end_s += min(LONGEST_PAUSE_S, pause_s)
        self._last_s = at_s
        coming = self._coming
        if len(coming) == self._length:
            self._start_s = coming.popleft()[0]
        coming.append((self._end_s, own_s))
        if self._start_s > FAR_S:
            start_s, self._start_s = self._start_s, 0.0
            self._end_s -= start_s
            self._coming = deque((when_s - start_s, own_s) for when_s, own_s in coming)

    def most_s(self, own_s: float, later_price: float) -> float:
        """`waits_s` grows by no more than this when a worker is busy for `own_s` longer: no request that comes waits
        for more than that longer, and no more than that is left after them.
        """
        return own_s * (len(self._coming) + later_price)

    def waits_s(self, free_s: Sequence[float], later_price: float) -> float:
        """How long the coming requests would wait in all, if worker i is free in `free_s[i]` seconds and each goes
        where it waits least; and `later_price` for every second of work that is left after the last of them.

        Work cannot be avoided by putting it off: without a price for what is left, the longest queue would look best.
        """
        start_s = self._start_s
        free = [start_s + each_s for each_s in free_s]
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
            end_s = self._end_s
            for first_s in free:
                if first_s > end_s:
                    waits_s += later_price * (first_s - end_s)
        return waits_s
