"""Requests that a policy would rather decide later, in the order in which they are due. Pure: time comes in.

A policy that foresees a long wait says so (`Decision.hold`): while the request is here and not in a worker's own queue,
shorter ones can pass it, and it can still go to whichever worker is free first. Called by hold (live) and by replay.
Not here: futures and timers (hold), when a wait is too long (the policy).

A request is due `least_s` plus `patience` times its own work after it came. So among those that wait the one with least
work goes first, nobody is passed for ever, and what is due goes whatever the policy says. Shortest job first has the
least mean wait of all orders that do not interrupt (Smith, 1956); the bound is on the slowdown, wait over own work.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from router.compiled import interpreted
from router.knob import knob, require
from router.records import Decision
from router.types import WorkerId

LOOK_S = 0.1
"""How often one of the workers is asked about while something is held."""
MISSES = 2
"""So many requests that would still wait are asked for when a worker has done something: more found no more work."""


@interpreted
@dataclass(frozen=True, slots=True, kw_only=True)
class HoldConfig:
    patience: float = knob(
        50.0, "a request that waits for its worker at the router may be passed for this many times its own prefill"
    )
    least_s: float = knob(5.0, "and for so many seconds more; then it is sent however long it will wait there")

    def __post_init__(self) -> None:
        require(0.0 <= self.patience <= 1e6, "patience must be between 0 and 1,000,000")
        require(0.0 <= self.least_s <= 3600.0, "least_s must be between 0 and 3,600")


class Held:
    """One request's place. `worker` is where it would go now; `tag` is the caller's own name for it."""

    __slots__ = ("arrived_s", "due_s", "number", "tag", "weight", "worker")

    def __init__(self, arrived_s: float, weight: float = 1.0, tag: int = 0) -> None:
        self.arrived_s = arrived_s
        self.weight = weight
        self.tag = tag
        self.due_s = inf
        self.number = 0
        self.worker: WorkerId | None = None


Place = tuple[float, int, Held]


class HeldQueue:
    """One list in order of due time for each worker that held requests would go to."""

    def __init__(self, config: HoldConfig) -> None:
        self.config = config
        self._of: dict[WorkerId, list[Place]] = {}
        self._number = 0
        self._turn = 0
        self.size = 0

    def waits(self, decision: Decision, held: Held, now_s: float) -> bool:
        """Whether a request so decided is to be held, or held on; not once it is due."""
        return decision.hold and now_s < held.due_s

    def put(self, held: Held, decision: Decision) -> None:
        """It waits, or waits on, by this decision."""
        self.take(held)
        own_s = max(0.0, (decision.expected_ttft_s or 0.0) - (decision.expected_wait_s or 0.0))
        held.due_s = held.arrived_s + (self.config.least_s + self.config.patience * own_s) / held.weight
        held.worker = decision.worker
        if not held.number:
            self._number += 1
            held.number = self._number
        insort(self._of.setdefault(decision.worker, []), (held.due_s, held.number, held))
        self.size += 1

    def take(self, held: Held) -> None:
        """It waits no more."""
        if held.worker is None:
            return
        places = self._of[held.worker]
        del places[bisect_left(places, (held.due_s, held.number))]
        if not places:
            del self._of[held.worker]
        held.worker = None
        self.size -= 1

    def turns(self, worker: WorkerId) -> Iterator[Held]:
        """Whom to ask again when `worker` has done something: those that would go there, and whoever is due first of
        all, until MISSES of them have been put back. The caller takes or puts each before it asks for the next.
        """
        asked: set[int] = set()
        misses = 0
        while misses < MISSES:
            held = self._first(worker, asked)
            if held is None:
                return
            asked.add(held.number)
            yield held
            misses += held.worker is not None

    def sizes(self) -> dict[WorkerId, int]:
        """How many would go to each worker."""
        return {worker: len(places) for worker, places in self._of.items()}

    def next_worker(self) -> WorkerId | None:
        """Each worker that requests wait for, in turn: not everything that frees a worker is told."""
        if not self._of:
            return None
        self._turn = (self._turn + 1) % len(self._of)
        return list(self._of)[self._turn]

    def _first(self, worker: WorkerId, asked: set[int]) -> Held | None:
        """The first in order of those for `worker` and of the heads of all lists, without those asked already."""
        places = [place for place in self._of.get(worker, ())[: MISSES + 1] if place[1] not in asked][:1]
        if not asked:
            places += [each[0] for each in self._of.values()]
        return min(places)[2] if places else None
