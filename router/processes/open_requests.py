"""Requests that were told to other processes, or by them, and have not ended. Used by teller, elsewhere. No I/O."""

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
    """A request that was told and has not ended. `waits`: no first byte has come; `wait` ends that, where it can be."""

    __slots__ = ("decision", "number", "request", "wait", "waits", "worker")

    def __init__(
        self, number: int, request: RoutingRequest, decision: Decision, worker: Worker | None, wait: Waiting | None
    ) -> None:
        self.number = number
        self.request = request
        self.decision = decision
        self.worker = worker
        self.wait = wait
        self.waits = True

    def can_be_ended(self, wait: Waiting) -> None:
        """From now on whoever judges the worker may end its wait."""
        self.wait = wait
        if self.worker is not None:
            self.worker.unanswered[wait] = None

    def answered(self) -> None:
        """It waits no more."""
        self.waits = False
        wait, worker = self.wait, self.worker
        if wait is not None and worker is not None:
            worker.unanswered.pop(wait, None)
        self.wait = None
