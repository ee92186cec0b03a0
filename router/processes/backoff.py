"""How long to wait before a process that ended is started again. Pure. Called by parent."""

from __future__ import annotations

FIRST_S = 0.5
MOST_S = 30.0
WELL_S = 60.0
"""A process that lived so long was well: the next wait is the first again."""


class Backoff:
    """One process's; the wait doubles with each end."""

    def __init__(self) -> None:
        self._next_s = FIRST_S

    def wait_s(self, lived_s: float) -> float:
        """It ended after so many seconds."""
        if lived_s >= WELL_S:
            self._next_s = FIRST_S
        wait_s, self._next_s = self._next_s, min(2 * self._next_s, MOST_S)
        return wait_s
