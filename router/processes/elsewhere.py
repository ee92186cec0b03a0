"""What other processes of this router told of, applied here: their requests, counts in flight, their end.

The same events as of this process's own requests, to all that learn from them. Compiled, as every request of every
other process comes here. Called by replica. Not here: the line, the rows of workers (fleet_rows), what is only counted
or shown (totals, wire).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from router.clock import Clock
from router.errors import RouterError
from router.fleet.call_off import Waiting
from router.fleet.registry import Registry
from router.processes import rows
from router.processes.open_requests import Open, RemoteWait
from router.records import Decision, Dispatched, FleetEvent, RoutingRequest
from router.types import AttemptFailed, CacheCleared, LoadReported, RequestId, WorkerId, Workers

log = logging.getLogger(__name__)

Shadow = Callable[[RoutingRequest, Workers, Decision], None]


class Elsewhere:
    """`end` is told to have a process end the wait of a request of its. `told` is the event that is being told here for
    another process. `shadow` hears of what was sent there, in the process that leads, where there are shadows.
    """

    def __init__(self, registry: Registry, clock: Clock, end: Callable[[int, str, str], None]) -> None:
        self.told: FleetEvent | None = None
        self._leads = False
        self._shadow: Shadow | None = None
        self._registry = registry
        self._clock = clock
        self._end = end
        self._open: dict[int, dict[int, Open]] = {}
        self._flights: dict[int, dict[str, int]] = {}

    def sources(self) -> set[int]:
        """Processes of which something is known."""
        return {*self._open, *self._flights}

    def lead(self, shadow: Shadow | None) -> None:
        """This process judges workers from now on, and may end waits for them."""
        self._leads, self._shadow = True, shadow
        for source, entries in self._open.items():
            for entry in entries.values():
                if entry.waits:
                    entry.can_be_ended(self._wait(source, entry.request.request_id))

    def take_events(self, source: int, events: Sequence[Any], names: list[Any]) -> None:
        """What happened there, in its order: rows, and names in them."""
        entries, known = self._entries(source), rows.names_of(names)
        for row in events:
            try:
                self._take(source, entries, row, known)
            except Exception:  # a bug here must not cost everything else that was told
                log.exception("an event of process %d could not be taken", source)
        self.told = None

    def take_open(self, source: int, numbers: Collection[int]) -> None:
        """These of its requests have not ended; of all others the end was lost."""
        entries, kept = self._entries(source), set(numbers)
        self._close([entries.pop(number) for number in list(entries) if number not in kept])

    def gone(self, source: int) -> None:
        """It has ended, and its requests with it."""
        flight = self._flights.pop(source, {})
        self._close(list(self._open.pop(source, {}).values()))
        self._count(flight)

    def take_flight(self, source: int, flight: Mapping[str, tuple[int, float, float]]) -> None:
        """Requests in flight there by worker, when it last heard of the worker, and until when that wants no more."""
        counts = self._flights.get(source)
        if counts is None:
            counts = self._flights[source] = {}
        for name, (count, heard_s, held_until_s) in flight.items():
            counts[name] = count
            worker = self._registry.find(WorkerId(name))
            if worker is not None:
                worker.heard_s = max(worker.heard_s, heard_s)
                if held_until_s > worker.held_until_s:
                    worker.held_until_s = held_until_s
                    self._registry.needs_care()
        self._count(flight)

    def _entries(self, source: int) -> dict[int, Open]:
        entries = self._open.get(source)
        if entries is None:
            entries = self._open[source] = {}
        return entries

    def _close(self, entries: Sequence[Open]) -> None:
        """These requests of another process are over, and nothing is known of how."""
        now_s = self._clock()
        for entry in entries:
            entry.answered()
            name = entry.request.request_id
            self._emit(AttemptFailed(request_id=name, worker=entry.decision.worker, at_s=now_s))
        self.told = None

    def _take(self, source: int, entries: dict[int, Open], row: list[Any], names: list[Any]) -> None:
        kind, number = row[0], row[1]
        if kind == rows.SENT:
            event = rows.dispatched_of(row, names)
            self._sent(source, entries, number, event, on_trial=row[2])
            self._emit(event)
        elif kind == rows.BEGAN:
            entry = entries.get(number)
            if entry is not None:
                entry.answered()
                self._emit(rows.first_token_of(row, entry.request, entry.decision))
        elif kind == rows.ENDED:
            entry = entries.pop(number, None)
            if entry is not None:
                if entry.waits:
                    entry.answered()
                self._emit(rows.finished_of(row, entry.request, entry.decision))
        else:
            self._take_rare(entries, row)

    def _take_rare(self, entries: dict[int, Open], row: list[Any]) -> None:
        kind = row[0]
        if kind == rows.FAILED:
            _, number, request_id, worker_id, at_s, code = row
            entry = entries.get(number)
            if entry is not None:
                entry.answered()
            self._emit(AttemptFailed(request_id=RequestId(request_id), worker=worker_id, at_s=at_s, code=code))
        elif kind == rows.OVER:
            over = entries.pop(row[1], None)
            if over is not None:
                over.answered()
        elif kind == rows.REPORTED:
            report = msgspec.convert(row[1], LoadReported)
            worker = self._registry.find(report.worker)
            if worker is not None:
                worker.load = report.load
                self._emit(report)
        else:
            assert kind == rows.CLEARED
            self._emit(CacheCleared(worker=WorkerId(row[1]), at_s=row[2]))

    def _sent(self, source: int, entries: dict[int, Open], number: int, event: Dispatched, *, on_trial: bool) -> None:
        request, decision = event.request, event.decision
        worker = self._registry.find(decision.worker)
        before = entries.get(number)
        if before is not None:
            before.answered()
        entry = entries[number] = Open(number, request, decision, worker, None)
        if self._leads:
            entry.can_be_ended(self._wait(source, request.request_id))
        if on_trial and worker is not None and not worker.vitals.breaker.closed:
            worker.vitals.breaker.trial_begins(event.at_s)
        if self._shadow is not None:
            try:
                workers = self._registry.eligible(request.model)
            except RouterError:
                return
            self._shadow(request, workers, decision)

    def _wait(self, source: int, request_id: RequestId) -> Waiting:
        end = self._end
        return RemoteWait(lambda why: end(source, request_id, why))

    def _emit(self, event: FleetEvent) -> None:
        """Tell this process's listeners, but not the others again."""
        self.told = event
        self._registry.emit(event)

    def _count(self, names: Collection[str]) -> None:
        for name in names:
            worker = self._registry.find(WorkerId(name))
            if worker is not None:
                total = 0
                for counts in self._flights.values():
                    total += counts.get(name, 0)
                self._registry.count_elsewhere(worker, total, told=self._leads)
