"""Random policy: every eligible worker is as likely. Not here: eligibility (fleet), retries (dispatch)."""

from __future__ import annotations

from random import Random

from router.records import Decision, FleetEvent, RoutingRequest
from router.types import Reason, Workers


class UniformRandom:
    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def select(self, request: RoutingRequest, workers: Workers) -> Decision:
        """Pick one at random in O(1)."""
        return Decision(worker=self._rng.choice(workers).id, reason=Reason.RANDOM)

    def observe(self, event: FleetEvent) -> None:
        """Nothing to learn."""
