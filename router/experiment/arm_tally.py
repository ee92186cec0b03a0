"""Everything an experiment measures of one arm, from Outcomes alone. Bounded memory (about 3 MB an arm).

Written by live, read by judge. What does not count: requests that had to leave the arm's workers (spilled), and those
that the client got wrong. A client that hangs up counts as not good, and as nothing else.
"""

from __future__ import annotations

from math import log

from router.errors import ClientError, ClientGone, RouterError
from router.experiment.tally import LOWEST_S, QuantileTally, RatioTally, TimeGrid
from router.records import Outcome


def _codes(root: type[RouterError]) -> frozenset[str]:
    """Error codes of a class and all below it."""
    return frozenset({root.code}).union(*(_codes(each) for each in root.__subclasses__()))


CLIENT_CODES = _codes(ClientError)


class DurationTally:
    """One duration: its mean, the mean of its logarithm, and its distribution."""

    def __init__(self, grid: TimeGrid) -> None:
        self.mean = RatioTally(grid)
        self.log = RatioTally(grid)
        self.spectrum = QuantileTally()

    def add(self, value_s: float, group: int, block: int) -> None:
        self.mean.add(value_s, 1.0, group, block)
        self.log.add(log(max(value_s, LOWEST_S)), 1.0, group, block)
        self.spectrum.add(value_s, group)


class ArmTally:
    def __init__(self, grid: TimeGrid, *, goodput_ttft_s: float, goodput_itl_s: float) -> None:
        self._grid = grid
        self._goodput_ttft_s = goodput_ttft_s
        self._goodput_itl_s = goodput_itl_s
        self.requests = 0
        self.spilled = 0
        self.failed = 0
        self.clients_gone = 0
        self.ttft = DurationTally(grid)
        self.itl = DurationTally(grid)
        self.e2e = DurationTally(grid)
        self.cached_ratio = RatioTally(grid)
        self.goodput = RatioTally(grid)
        self.error_rate = RatioTally(grid)

    def add(self, outcome: Outcome, group: int) -> None:
        """Count one ended request of this arm. O(1)."""
        if outcome.spilled:
            self.spilled += 1
            return
        gone = outcome.error == ClientGone.code
        if not gone and (outcome.error in CLIENT_CODES or 400 <= outcome.status < 500):
            return
        block = self._grid.block(outcome.at_s)
        self.requests += 1
        self.goodput.add(float(self._is_good(outcome)), 1.0, group, block)
        if gone:
            self.clients_gone += 1
            return
        self.failed += not outcome.ok
        self.error_rate.add(float(not outcome.ok), 1.0, group, block)
        if outcome.ok:
            self._add_times(outcome, group, block)

    def _add_times(self, outcome: Outcome, group: int, block: int) -> None:
        self.e2e.add(outcome.e2e_s, group, block)
        if outcome.ttft_s is not None:
            self.ttft.add(outcome.ttft_s, group, block)
        if outcome.itl_mean_s is not None:
            self.itl.add(outcome.itl_mean_s, group, block)
        if outcome.cached_tokens is not None and outcome.prompt_tokens:
            self.cached_ratio.add(float(outcome.cached_tokens), float(outcome.prompt_tokens), group, block)

    def _is_good(self, outcome: Outcome) -> bool:
        return (
            outcome.ok
            and outcome.ttft_s is not None
            and outcome.ttft_s <= self._goodput_ttft_s
            and (outcome.itl_mean_s is None or outcome.itl_mean_s <= self._goodput_itl_s)
        )
