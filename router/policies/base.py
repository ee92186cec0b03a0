"""The policy protocol and what it promises. Policies are arithmetic: no I/O, no asyncio, no clock.

Called by request.dispatch, by shadows and by replay.
"""

from __future__ import annotations

from typing import Protocol

from router.records import Decision, FleetEvent, RoutingRequest
from router.types import Workers


class Policy(Protocol):
    """Chooses a worker. The same object serves live traffic, shadows another policy and runs in replay."""

    def select(self, request: RoutingRequest, workers: Workers) -> Decision:
        """Choose one of `workers` (never empty, all eligible).

        Reads only: two calls on equal state give equal decisions and leave the state unchanged, except that the
        policy's own random source advances. Never raises for a well-formed request.
        """
        ...

    def observe(self, event: FleetEvent) -> None:
        """Learn from what happened. The only way a policy's state changes. Unknown workers and ids are ignored."""
        ...
