"""Requests that were told to other processes, or by them, and have not ended. Records of replica; no I/O."""

from __future__ import annotations

from collections.abc import Callable

from router.errors import RouterError
from router.fleet.call_off import Waiting
from router.fleet.worker import Worker
from router.records import Decision, RoutingRequest


class RemoteWait:
    """Stands for a request of another process that waits for its first byte, so that the leader can call it off."""

    __slots__ = ("_end",)

    def __init__(self, end: Callable[[str], None]) -> None:
        self._end = end

    def __call__(self, error: RouterError) -> None:
        self._end(error.message)


class Open:
    """A request that was told and has not ended."""

    __slots__ = ("decision", "request", "wait", "worker")

    def __init__(
        self, request: RoutingRequest, decision: Decision, worker: Worker | None, wait: Waiting | None
    ) -> None:
        self.request = request
        self.decision = decision
        self.worker = worker
        self.wait = wait

    def answered(self) -> None:
        """It waits no more."""
        if self.worker is not None and self.wait is not None:
            self.worker.unanswered.pop(self.wait, None)
        self.wait = None
