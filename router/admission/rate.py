"""A token bucket: how many requests a client may start. Pure: time is an argument. Called by admission."""

from __future__ import annotations


class Bucket:
    """`rate_per_s` in the long run, `burst` at once. Starts full."""

    __slots__ = ("_burst", "_filled_s", "_left", "_rate_per_s")

    def __init__(self, rate_per_s: float, burst: float, now_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._left = burst
        self._filled_s = now_s

    def take(self, now_s: float) -> float:
        """0 when one may start now, and it is taken; else the seconds until one may."""
        self._left = min(self._burst, self._left + (now_s - self._filled_s) * self._rate_per_s)
        self._filled_s = now_s
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return (1 - self._left) / self._rate_per_s

    def spend(self, count: int, now_s: float) -> None:
        """So many have been started elsewhere. Owes at most one burst."""
        self._left = min(self._burst, self._left + (now_s - self._filled_s) * self._rate_per_s) - count
        self._left = max(self._left, -self._burst)
        self._filled_s = now_s
