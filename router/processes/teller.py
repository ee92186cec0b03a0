"""Notes what happens in this process that the others learn from: rows of its requests, their counts by worker.

Listens to the registry. Compiled, as every request comes here. Called by replica, which sends what is noted. Not here:
what others told (elsewhere), the line (bus).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from router.fleet.breaker import BreakerState
from router.fleet.registry import Registry
from router.processes import rows
from router.processes.elsewhere import Elsewhere
from router.processes.open_requests import Open
from router.processes.rows import Row
from router.records import Dispatched, Finished, FirstToken, Outcome
from router.types import AttemptFailed, CacheCleared, LoadReported, RequestId

NEVER = (0, float("-inf"))


class Teller:
    """`touch` is called with the first event after each `take`, `soon` with one that the others should hear at once.

    In `whole` outcomes of what ended here are kept where that is a list.
    """

    def __init__(
        self, registry: Registry, elsewhere: Elsewhere, touch: Callable[[], None], soon: Callable[[], None]
    ) -> None:
        self._registry = registry
        self._elsewhere = elsewhere
        self._touch = touch
        self._soon = soon
        self._events: list[Any] = []
        self._names = rows.Names()
        self._own: dict[RequestId, Open] = {}
        self._count = 0
        self.whole: list[Outcome] | None = None
        self._sent_flight: dict[str, tuple[int, float]] = {}

    def listen(self) -> None:
        """Hear what happens from now on."""
        heard: dict[type, Callable[[Any], None]] = {
            Dispatched: self._dispatched,
            FirstToken: self._began,
            AttemptFailed: self._failed,
            Finished: self._finished,
            LoadReported: self._reported,
            CacheCleared: self._cleared,
        }
        for kind, listener in heard.items():
            self._registry.listen(listener, kind)

    def ended(self, outcome: Outcome) -> None:
        """Sink of this process's Outcomes; where it had a worker, Finished was told before."""
        entry = self._own.pop(outcome.request_id, None)
        if entry is not None:
            self._note((rows.OVER, entry.number))
        if self.whole is not None:
            self.whole.append(outcome)

    def take(self) -> tuple[list[Any], list[str | None]]:
        """What was noted since the last time: rows, and names in them."""
        events, names, self._events, self._names = self._events, self._names, [], rows.Names()
        return events, names.told

    def open(self) -> list[int]:
        """Numbers of requests that have not ended."""
        return [entry.number for entry in self._own.values()]

    def find(self, request_id: RequestId) -> Open | None:
        """A request that has not ended."""
        return self._own.get(request_id)

    def flight(self, *, whole: bool) -> dict[str, tuple[int, float, float]]:
        """Requests in flight here by worker, when it last sent us bytes, and until when it wants no more; what has not
        changed since the last time only if the `whole` is wanted.
        """
        told: dict[str, tuple[int, float, float]] = {}
        before = self._sent_flight
        for worker in self._registry.all():
            state = (worker.in_flight - worker.elsewhere, worker.held_until_s)
            if whole or before.get(worker.id, NEVER) != state:
                before[worker.id] = state
                told[worker.id] = (state[0], worker.heard_s, state[1])
        return told

    # -- listeners ------------------------------------------------------------------------------------------------

    def _dispatched(self, event: Dispatched) -> None:
        if event is self._elsewhere.told:
            return
        request, worker = event.request, self._registry.find(event.decision.worker)
        before = self._own.get(request.request_id)
        if before is None:
            self._count += 1
        number = self._count if before is None else before.number
        trial, wait = False, None
        if worker is not None:
            trial = worker.vitals.breaker.state is BreakerState.TRIAL
            wait = next(reversed(worker.unanswered), None)
        self._own[request.request_id] = Open(number, request, event.decision, worker, wait)
        self._note(rows.sent(number, event, self._names, on_trial=trial))

    def _began(self, event: FirstToken) -> None:
        entry = None if event is self._elsewhere.told else self._own.get(event.request_id)
        if entry is not None:
            self._note(rows.began(entry.number, event))

    def _finished(self, event: Finished) -> None:
        entry = None if event is self._elsewhere.told else self._own.pop(event.request_id, None)
        if entry is not None:
            self._note(rows.ended(entry.number, event))

    def _failed(self, event: AttemptFailed) -> None:
        if event is self._elsewhere.told:
            return
        entry = self._own.get(event.request_id)
        number = 0 if entry is None else entry.number
        self._events.append((rows.FAILED, number, event.request_id, event.worker, event.at_s, event.code))
        self._soon()

    def _reported(self, event: LoadReported) -> None:
        if event is not self._elsewhere.told:
            self._note((rows.REPORTED, msgspec.to_builtins(event)))

    def _cleared(self, event: CacheCleared) -> None:
        if event is not self._elsewhere.told:
            self._note((rows.CLEARED, event.worker, event.at_s))

    def _note(self, row: Row) -> None:
        self._events.append(row)
        if len(self._events) == 1:
            self._touch()
