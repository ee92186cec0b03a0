"""Power-of-two-choices policy: samples two workers and keeps the one with fewer requests in flight.

Not here: eligibility (fleet), retries (dispatch).
Source: Mitzenmacher, "The power of two choices in randomized load balancing" (2001).
"""

from __future__ import annotations

from random import Random

from router.policies.ties import smallest
from router.records import Decision, FleetEvent, RoutingRequest
from router.types import Reason, Workers


class PowerOfTwo:
    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def select(self, request: RoutingRequest, workers: Workers) -> Decision:
        """Pick one of two sampled workers in O(1)."""
        if len(workers) == 1:
            return Decision(worker=workers[0].id, reason=Reason.ONLY_WORKER)
        pair = self._rng.sample(workers, 2)
        index = smallest([worker.in_flight for worker in pair], self._rng)
        return Decision(worker=pair[index].id, reason=Reason.LEAST_LOADED)

    def observe(self, event: FleetEvent) -> None:
        """Nothing to learn: counts arrive with `workers`."""
