"""Round-robin policy: workers in turn. The turn advances when a request is dispatched, not when it is asked about."""

from __future__ import annotations

from router.records import Decision, Dispatched, FleetEvent, RoutingRequest
from router.types import Reason, Workers


class RoundRobin:
    def __init__(self) -> None:
        self._dispatched = 0

    def select(self, request: RoutingRequest, workers: Workers) -> Decision:
        """Pick the worker whose turn it is in O(1)."""
        return Decision(worker=workers[self._dispatched % len(workers)].id, reason=Reason.TURN)

    def observe(self, event: FleetEvent) -> None:
        if isinstance(event, Dispatched):
            self._dispatched += 1
