"""What an experiment remembers of one measure in one arm: sums, sums by group and by time, a histogram. Bounded.

Requests of one session resemble each other, and so do requests of one minute. Sessions are therefore hashed into GROUPS
groups: groups are independent even where requests are not, so the spread between groups gives a standard error that
is right for correlated requests, in fixed memory. Blocks of time catch what sessions do not: queues and bursts.
Written by live (O(1) a request); read by compare. Not here: intervals.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from itertools import accumulate
from math import exp, log

GROUPS = 256
"""Independent groups of sessions; 255 degrees of freedom are nearly as good as knowing the variance."""
MAX_BLOCKS = 256
"""Blocks of time; when more are needed, neighbours are merged and every block is twice as long."""
BINS = 900
COARSE = 30
"""Bins are also counted in runs of 30, so that a sum over a group's bins is short."""
LOWEST_S = 1e-5
BIN_WIDTH = 0.02
"""A bin is 2 % wide; 900 of them reach from 10 us to 650 s, and quantiles are interpolated within a bin."""


class TimeGrid:
    """Equal blocks of time from `start_s` on, shared by all tallies of an experiment."""

    def __init__(self, start_s: float, block_s: float) -> None:
        self.start_s = start_s
        self.block_s = block_s
        self.merges = 0

    def block(self, at_s: float) -> int:
        """The block of a moment; merges blocks until it is below MAX_BLOCKS."""
        index = max(0, int((at_s - self.start_s) / self.block_s))
        while index >= MAX_BLOCKS:
            self.block_s *= 2
            self.merges += 1
            index //= 2
        return index


class RatioTally:
    """A ratio of sums, such as a mean (value over 1) or a share of tokens (cached over prompt)."""

    __slots__ = (
        "_block_bottom", "_block_top", "_bottom_bottom", "_grid", "_merges", "_top_bottom", "_top_top", "bottom",
        "count", "group_bottom", "group_top", "top",
    )  # fmt: skip

    def __init__(self, grid: TimeGrid) -> None:
        self.count = 0
        self.top = 0.0
        self.bottom = 0.0
        self.group_top = [0.0] * GROUPS
        self.group_bottom = [0.0] * GROUPS
        self._block_top = [0.0] * MAX_BLOCKS
        self._block_bottom = [0.0] * MAX_BLOCKS
        self._top_top = 0.0
        self._top_bottom = 0.0
        self._bottom_bottom = 0.0
        self._grid = grid
        self._merges = grid.merges

    def add(self, top: float, bottom: float, group: int, block: int) -> None:
        """One request. `block` comes from the grid, after which no tally may add an older numbering."""
        if self._merges < self._grid.merges:
            self._follow_grid()
        self.count += 1
        self.top += top
        self.bottom += bottom
        self.group_top[group] += top
        self.group_bottom[group] += bottom
        self._block_top[block] += top
        self._block_bottom[block] += bottom
        self._top_top += top * top
        self._top_bottom += top * bottom
        self._bottom_bottom += bottom * bottom

    @property
    def ratio(self) -> float | None:
        return self.top / self.bottom if self.bottom else None

    def variance_alone(self) -> float:
        """Variance of the ratio if every request were independent of every other."""
        mean = self.top / self.bottom
        squares = self._top_top - 2 * mean * self._top_bottom + mean * mean * self._bottom_bottom
        return max(0.0, squares) / self.bottom**2

    def variance_by_group(self) -> tuple[float, int]:
        """Variance of the ratio from the spread between groups, and how many groups have requests."""
        mean = self.top / self.bottom
        used = sum(1 for bottom in self.group_bottom if bottom)
        total = sum((t - mean * b) ** 2 for t, b in zip(self.group_top, self.group_bottom, strict=True))
        return (total / self.bottom**2 * used / (used - 1) if used > 1 else float("inf")), used

    def block_influence(self) -> list[float]:
        """How much each block of time moves the ratio away from what it is; 0 where nothing was."""
        self._follow_grid()
        mean = self.top / self.bottom
        return [(t - mean * b) / self.bottom for t, b in zip(self._block_top, self._block_bottom, strict=True)]

    def blocks_used(self) -> list[bool]:
        """Which blocks of time have requests."""
        self._follow_grid()
        return [bottom > 0 for bottom in self._block_bottom]

    def _follow_grid(self) -> None:
        while self._merges < self._grid.merges:
            self._merges += 1
            for column in (self._block_top, self._block_bottom):
                half = [column[2 * i] + column[2 * i + 1] for i in range(MAX_BLOCKS // 2)]
                column[:] = half + [0.0] * (MAX_BLOCKS - len(half))


class QuantileTally:
    """A histogram over logarithmic bins, in all and by group. Values are positive, in seconds."""

    def __init__(self) -> None:
        self.count = 0
        self._bins = array("Q", bytes(8 * BINS))
        self._by_group = [array("I", bytes(4 * BINS)) for _ in range(GROUPS)]
        self._coarse = [array("I", bytes(4 * BINS // COARSE)) for _ in range(GROUPS)]
        self._group_count = array("Q", bytes(8 * GROUPS))

    def add(self, value_s: float, group: int) -> None:
        place = min(BINS - 1, max(0, int(log(max(value_s, LOWEST_S) / LOWEST_S) / BIN_WIDTH)))
        self.count += 1
        self._bins[place] += 1
        self._by_group[group][place] += 1
        self._coarse[group][place // COARSE] += 1
        self._group_count[group] += 1

    def quantiles(self, shares: list[float]) -> list[float | None]:
        """The values below which these shares of all requests lie; None outside of 0 to 1. Needs one request."""
        below = list(accumulate(self._bins))
        return [self._quantile(share, below) if 0 < share < 1 else None for share in shares]

    def _quantile(self, share: float, below: list[int]) -> float:
        wanted = share * self.count
        place = min(bisect_right(below, wanted), BINS - 1)
        before = below[place - 1] if place else 0
        inside = (wanted - before) / self._bins[place] if self._bins[place] else 0.5
        return LOWEST_S * exp((place + inside) * BIN_WIDTH)

    def design_effect(self, value_s: float) -> float:
        """By how much correlation within groups inflates the variance of the share below `value_s`; at least 1."""
        place = min(BINS - 1, max(0, int(log(max(value_s, LOWEST_S) / LOWEST_S) / BIN_WIDTH)))
        whole = place // COARSE
        below = [
            sum(coarse[:whole]) + sum(bins[whole * COARSE : place])
            for coarse, bins in zip(self._coarse, self._by_group, strict=True)
        ]
        share = sum(below) / self.count
        alone = share * (1 - share) * self.count
        used = sum(1 for count in self._group_count if count)
        if alone <= 0 or used < 2:
            return 1.0
        spread = sum((got - share * count) ** 2 for got, count in zip(below, self._group_count, strict=True))
        return max(1.0, spread * used / (used - 1) / alone)
