"""What other processes of this router told of, applied here: their requests, outcomes, counts in flight, their end.

Through the same events and sinks as of this process's own requests. Called by replica. Not here: the line, the rows of
workers (fleet_rows).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from router.errors import RouterError
from router.fleet.call_off import Waiting
from router.processes import wire
from router.processes.open_requests import Open, RemoteWait
from router.processes.parts import Parts
from router.records import Dispatched, Finished, FirstToken, FleetEvent
from router.types import AttemptFailed, RequestId, WorkerId

log = logging.getLogger(__name__)

BODIES = 1000
"""Bodies of requests that may wait for their outcomes, where there is a decision log with text."""


class Elsewhere:
    """`end` is told to have a process end the wait of a request of its. `leads` says whether this process does."""

    def __init__(self, parts: Parts, end: Callable[[int, str, str], None]) -> None:
        self.leads = False
        self._parts = parts
        self._registry = parts.registry
        self._end = end
        self._open: dict[int, dict[str, Open]] = {}
        self._flights: dict[int, dict[str, int]] = {}
        self._bodies: dict[str, bytes] = {}
        self._told: FleetEvent | None = None

    def sources(self) -> set[int]:
        """Processes of which something is known."""
        return {*self._open, *self._flights}

    def is_told(self, event: FleetEvent) -> bool:
        """Whether this event is being told here for another process."""
        return event is self._told

    def take_events(self, source: int, events: Sequence[wire.Told]) -> None:
        """What happened there, in its order."""
        entries = self._open.setdefault(source, {})
        for told in events:
            try:
                self._take(source, entries, told)
            except Exception:  # a bug here must not cost everything else that was told
                log.exception("an event of process %d could not be taken", source)

    def take_open(self, source: int, names: Collection[str]) -> None:
        """These of its requests have not ended; of all others the end was lost."""
        entries, kept = self._open.setdefault(source, {}), set(names)
        self._close({name: entries.pop(name) for name in list(entries) if name not in kept})

    def take_body(self, request_id: str, body: bytes) -> None:
        """The body of a request that is about to end there."""
        self._bodies[request_id] = body
        while len(self._bodies) > BODIES:
            del self._bodies[next(iter(self._bodies))]

    def gone(self, source: int) -> None:
        """It has ended, and its requests with it."""
        flight = self._flights.pop(source, {})
        self._close(self._open.pop(source, {}))
        self._count(flight)

    def take_flight(self, source: int, flight: Mapping[str, Sequence[float]]) -> None:
        """Requests in flight there by worker, when it last heard of the worker, and until when that wants no more."""
        counts = self._flights.setdefault(source, {})
        for name, (count, heard_s, held_until_s) in flight.items():
            counts[name] = int(count)
            worker = self._registry.find(WorkerId(name))
            if worker is not None:
                worker.heard_s = max(worker.heard_s, heard_s)
                if held_until_s > worker.held_until_s:
                    worker.held_until_s = held_until_s
                    self._registry.needs_care()
        self._count(flight)

    def _close(self, entries: Mapping[str, Open]) -> None:
        """These requests of another process are over, and nothing is known of how."""
        now_s = self._parts.clock()
        for name, entry in entries.items():
            entry.answered()
            self._emit(AttemptFailed(request_id=RequestId(name), worker=entry.decision.worker, at_s=now_s))

    def _take(self, source: int, entries: dict[str, Open], told: wire.Told) -> None:
        match told:
            case wire.Ended():
                self._take_outcome(source, entries, told)
            case wire.Sent():
                event = told.event()
                self._take_dispatched(source, entries, event, on_trial=told.on_trial)
                self._emit(event)
            case wire.Began():
                self._take_answer(entries, told.event())
            case wire.Failed():
                self._take_answer(entries, told.event)
            case wire.Reported():
                worker = self._registry.find(told.event.worker)
                if worker is not None:
                    worker.load = told.event.load
                    self._emit(told.event)
            case wire.Cleared():
                self._emit(told.event)
            case wire.Explained():
                self._parts.insight.recent.decided(told.request_id, told.weighing())

    def _take_dispatched(self, source: int, entries: dict[str, Open], event: Dispatched, *, on_trial: bool) -> None:
        request, decision = event.request, event.decision
        worker = self._registry.find(decision.worker)
        wait: Waiting | None = None
        if worker is not None:
            wait = RemoteWait(lambda why: self._end(source, request.request_id, why))
            worker.unanswered[wait] = None
            if on_trial and not worker.vitals.breaker.closed:
                worker.vitals.breaker.trial_begins(event.at_s)
        before = entries.get(request.request_id)
        if before is not None:
            before.answered()
        entries[request.request_id] = Open(request, decision, worker, wait)
        if self.leads and self._parts.insight.shadows:
            try:
                workers = self._registry.eligible(request.model)
            except RouterError:
                return
            self._parts.insight.steering.shadow(request, workers, decision)

    def _take_answer(self, entries: dict[str, Open], event: FirstToken | AttemptFailed) -> None:
        """Its worker has answered, or failed to."""
        entry = entries.get(event.request_id)
        if entry is not None:
            entry.answered()
        self._emit(event)

    def _take_outcome(self, source: int, entries: dict[str, Open], told: wire.Ended) -> None:
        entry = entries.pop(told.request_id, None)
        if entry is not None:
            entry.answered()
        outcome = told.whole(None if entry is None else (entry.request.key, entry.decision))
        decision = outcome.decision
        if told.finished_s is not None and decision is not None:
            self._emit(
                Finished(request_id=outcome.request_id, worker=decision.worker, outcome=outcome, at_s=told.finished_s)
            )
        for sink in self._parts.sinks:
            sink(outcome)
        self._parts.totals.served(source)
        decision_log = self._parts.insight.decision_log
        if self.leads and decision_log is not None:
            decision_log.write(outcome, self._bodies.pop(outcome.request_id, b""))

    def _emit(self, event: FleetEvent) -> None:
        """Tell this process's listeners, but not the others again."""
        self._told = event
        try:
            self._registry.emit(event)
        finally:
            self._told = None

    def _count(self, names: Collection[str]) -> None:
        for name in names:
            worker = self._registry.find(WorkerId(name))
            if worker is not None:
                total = sum(counts.get(name, 0) for counts in self._flights.values())
                self._registry.count_elsewhere(worker, total, told=self.leads)
