"""Least-in-flight policy: the worker with the fewest of our requests. Reads counts already taken.

Not here: eligibility (fleet), retries (dispatch).
"""

from __future__ import annotations

from random import Random

from router.policies.ties import smallest
from router.records import Decision, FleetEvent, RoutingRequest
from router.types import Reason, Workers


class LeastInFlight:
    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def select(self, request: RoutingRequest, workers: Workers) -> Decision:
        """Pick the least loaded in O(workers); ties are broken at random."""
        index = smallest([worker.in_flight for worker in workers], self._rng)
        return Decision(worker=workers[index].id, reason=Reason.LEAST_LOADED)

    def observe(self, event: FleetEvent) -> None:
        """Nothing to learn: counts arrive with `workers`."""
