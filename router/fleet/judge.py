"""What requests and load reports say of a worker's health, told to its vitals and to the registry. No I/O.

Listens to fleet events. A worker that answers 429 or 503 is busy, not broken; what a client did wrong says nothing.
Not here: probes (health), what follows from all of it (vitals).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from router.errors import WorkerTimeout
from router.fleet.lost import LostRequests
from router.fleet.registry import Registry
from router.fleet.worker import Worker
from router.records import Finished, FirstToken
from router.types import AttemptFailed, LoadReport, LoadReported, WorkerId, WorkerLeft

UNREACHABLE = "worker_unreachable"
BLAMED = frozenset({"worker_hung_up", "worker_timeout", "worker_refused", "stream_cut", UNREACHABLE})
"""Error codes of an attempt that speak against its worker."""
BUSY_STATUSES = (429, 503)
DOUBT_HOLD_S = 3.0
"""For so long after each report that raises doubt others get what comes: three reports at their usual interval."""


class Judge:
    """Keeps the vitals of all workers of one registry. A request is lost after `patience_s` (fleet.lost); 0: never."""

    def __init__(self, registry: Registry, patience_s: float = 0.0) -> None:
        self._registry = registry
        self._patience_s = patience_s
        self._loads: dict[WorkerId, tuple[int | None, ...]] = {}
        self._lost: dict[WorkerId, LostRequests] = {}

    def listen(self) -> None:
        """Hear what happens from now on. Ignores what workers that are gone still do."""
        heard: dict[type, Callable[[Any], None]] = {
            FirstToken: self._began,
            AttemptFailed: self._failed,
            Finished: self._finished,
            LoadReported: self._reported,
            WorkerLeft: self._left,
        }
        for kind, listener in heard.items():
            self._registry.listen(listener, kind)

    def _left(self, event: WorkerLeft) -> None:
        self._loads.pop(event.worker, None)
        self._lost.pop(event.worker, None)

    def _began(self, event: FirstToken) -> None:
        worker = self._registry.find(event.worker)
        if worker is None:
            return
        vitals = worker.vitals
        vitals.progressed(event.at_s)
        if event.status < 500 and event.status not in BUSY_STATUSES:
            breaker = vitals.breaker
            closed = breaker.closed
            breaker.answered()
            if not closed:
                breaker.trial_passed(event.at_s)
                self._registry.judge(worker)

    def _failed(self, event: AttemptFailed) -> None:
        worker = self._registry.find(event.worker)
        if worker is None or event.code not in BLAMED:
            return
        if event.code == UNREACHABLE:
            worker.vitals.connection_refused("a request could not be sent there")
        worker.vitals.breaker.failed(event.at_s, event.code or "")
        self._registry.judge(worker)

    def _finished(self, event: Finished) -> None:
        worker, outcome = self._registry.find(event.worker), event.outcome
        if worker is None:
            return
        if outcome.error is None and outcome.status >= 500 and outcome.status not in BUSY_STATUSES:
            worker.vitals.breaker.failed(event.at_s, f"answered {outcome.status}")
            self._registry.judge(worker)
        elif outcome.ok:
            worker.vitals.progressed(event.at_s)

    def _reported(self, event: LoadReported) -> None:
        worker, seen = self._registry.find(event.worker), figures(event.load)
        if worker is None:
            return
        moved = self._loads.get(event.worker, seen) != seen
        if moved:
            worker.vitals.progressed(event.at_s)
        self._loads[event.worker] = seen
        if self._patience_s > 0:
            self._call_off_lost(worker, event.load, moved=moved)

    def _call_off_lost(self, worker: Worker, load: LoadReport, *, moved: bool) -> None:
        """What the worker does not know of any more goes elsewhere, and so does what comes while that is in doubt: a
        worker that loses what it is sent seems idle, and would be sent everything."""
        watched = self._lost.get(worker.id)
        if watched is None:
            watched = self._lost[worker.id] = LostRequests(self._patience_s)
        for each in watched.reported(load, worker.unanswered, moved=moved):
            each(
                WorkerTimeout(
                    f"Worker {worker.id} has lost the request: for {self._patience_s:g} s it sent nothing, and "
                    "reported fewer requests than wait there (health.stall_s)."
                )
            )
        if watched.doubtful:
            self._registry.hold(worker, DOUBT_HOLD_S)


def figures(load: LoadReport) -> tuple[int | None, ...]:
    """What changes in a report while a worker works."""
    return (load.running, load.waiting, load.waiting_uncached_tokens, load.used_tokens)
