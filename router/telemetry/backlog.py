"""Outcomes that are yet to be counted: many at a time, so that what counts them is fetched into the cache once.

A sink of Outcomes. Whoever shows what was counted settles first, so nobody sees that it waited. Made by insight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from router.records import Outcome

Counter = Callable[[Sequence[Outcome]], None]
MOST: Final = 64
"""So many wait at most: counting them takes about 0.2 ms."""


class Backlog:
    """`counters` are handed every Outcome once, in the order in which requests ended."""

    def __init__(self) -> None:
        self.counters: list[Counter] = []
        self._waiting: list[Outcome] = []

    def add(self, outcome: Outcome) -> None:
        """One more request has ended."""
        waiting = self._waiting
        waiting.append(outcome)
        if len(waiting) >= MOST:
            self.settle()

    def settle(self) -> None:
        """Count what waits."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            for counter in self.counters:
                counter(waiting)
