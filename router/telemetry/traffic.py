"""The last ten minutes in steps of five seconds: requests, failures, TTFT, tokens, and the same per worker. Bounded.

Counts Outcomes from the backlog, O(1) a request; what other processes of this router counted is told (`dump`, `heard`)
and kept beside it. Read by the dashboard. Not here: Prometheus (metrics), single requests (recent_requests).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp, floor, log
from typing import Any, Final

from router.clock import Clock
from router.records import Outcome
from router.telemetry.backlog import Backlog
from router.types import WorkerId

STEP_S = 5.0
STEPS = 120
TOLD = 3
"""Steps that a process tells the others each time: those it may have counted in since the last time, and some more."""
ENDED: Final = -1
"""Stands for the processes that have ended."""
BIN = 0.05
"""TTFT is counted in bins 5 % wide."""
LOWEST = floor(log(1e-6) / BIN)
"""The bin of everything below a microsecond."""


class Step:
    """What ended within one step of time."""

    __slots__ = ("cached_tokens", "failed", "prompt_tokens", "requests", "ttft")

    def __init__(self) -> None:
        self.requests = 0
        self.failed = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.ttft: dict[int, int] = {}
        """How many by bin."""

    def add(self, one: Outcome) -> None:
        ttft_s, cached, prompt = one.ttft_s, one.cached_tokens, one.prompt_tokens
        self.requests += 1
        self.failed += one.status >= 500
        if ttft_s is not None:
            place = floor(log(ttft_s) / BIN) if ttft_s > 1e-6 else LOWEST
            self.ttft[place] = self.ttft.get(place, 0) + 1
        if cached is not None and prompt is not None:
            self.prompt_tokens += prompt
            self.cached_tokens += cached

    def include(self, other: Step) -> None:
        """Count what the other one counted as well."""
        self.requests += other.requests
        self.failed += other.failed
        self.prompt_tokens += other.prompt_tokens
        self.cached_tokens += other.cached_tokens
        for place, count in other.ttft.items():
            self.ttft[place] = self.ttft.get(place, 0) + count


Steps = dict[int, dict[WorkerId | None, Step]]


class Traffic:
    """Steps by worker (None: no worker was chosen); step i of the ring holds the time that ends with it."""

    def __init__(self, clock: Clock, backlog: Backlog) -> None:
        self._clock = clock
        self._backlog = backlog
        self._steps: Steps = {}
        self._elsewhere: dict[int, Steps] = {}
        backlog.counters.append(self._count)

    def _count(self, outcomes: Sequence[Outcome]) -> None:
        """Each in the step in which it ended."""
        for one in outcomes:
            place, decision = int((one.at_s + one.e2e_s) / STEP_S), one.decision
            worker = None if decision is None else decision.worker
            steps = self._steps.get(place)
            if steps is None:
                steps = _begin(self._steps, place)
            step = steps.get(worker)
            if step is None:
                step = steps[worker] = Step()
            step.add(one)

    def dump(self, *, whole: bool = False) -> list[Any]:
        """The last steps of this process, or all of them, for another one."""
        self._backlog.settle()
        first = int(self._clock() / STEP_S) - (STEPS if whole else TOLD)
        return [
            (place, worker, step.requests, step.failed, step.prompt_tokens, step.cached_tokens, step.ttft)
            for place, steps in self._steps.items()
            if place > first
            for worker, step in steps.items()
        ]

    def heard(self, source: int, rows: Sequence[Any]) -> None:
        """What another process dumped; it takes the place of what was heard of the same steps."""
        kept = self._elsewhere.setdefault(source, {})
        for place in {row[0] for row in rows}:
            kept.pop(place, None)
            _begin(kept, place)
        for place, worker, requests, failed, prompt_tokens, cached_tokens, ttft in rows:
            if place in kept:
                step = kept[place][worker] = Step()
                step.requests, step.failed = requests, failed
                step.prompt_tokens, step.cached_tokens = prompt_tokens, cached_tokens
                step.ttft = ttft

    def gone(self, source: int) -> None:
        """That process has ended, and another one will go by its number."""
        kept = self._elsewhere.setdefault(ENDED, {})
        for place, steps in self._elsewhere.pop(source, {}).items():
            ended = kept[place] if place in kept else _begin(kept, place)
            for worker, step in steps.items():
                ended.setdefault(worker, Step()).include(step)

    def series(self) -> list[tuple[float, Step]]:
        """(seconds ago, step), oldest first, the one that is still filling last; empty steps included."""
        self._backlog.settle()
        now = int(self._clock() / STEP_S)
        places = range(now - STEPS + 1, now + 1)
        return [((now - place) * STEP_S, _sum(self._at(place))) for place in places]

    def last_minute(self, worker: WorkerId) -> Step:
        """What ended on one worker in the last minute."""
        self._backlog.settle()
        now = int(self._clock() / STEP_S)
        return _sum([step for place in range(now - 11, now + 1) for step in self._of(place, worker)])

    def _at(self, place: int) -> list[Step]:
        return [step for steps in (self._steps, *self._elsewhere.values()) for step in steps.get(place, {}).values()]

    def _of(self, place: int, worker: WorkerId) -> list[Step]:
        found = [steps.get(place, {}).get(worker) for steps in (self._steps, *self._elsewhere.values())]
        return [step for step in found if step is not None]


def _begin(kept: Steps, place: int) -> dict[WorkerId | None, Step]:
    """A new step; those too old to be shown go."""
    steps = kept[place] = {}
    newest = max(kept)
    for old in [each for each in kept if each <= newest - STEPS]:
        del kept[old]
    return steps


def _sum(steps: Iterable[Step]) -> Step:
    total = Step()
    for step in steps:
        total.include(step)
    return total


def quantiles(ttft: dict[int, int], shares: tuple[float, ...]) -> list[float | None]:
    """Quantiles in seconds of a histogram of TTFT, within 5 %; None when it is empty."""
    count = sum(ttft.values())
    if not count:
        return [None] * len(shares)
    found: list[float | None] = []
    ordered = sorted(ttft.items())
    for share in shares:
        below = 0
        for place, number in ordered:
            below += number
            if below >= share * count:
                found.append(exp((place + 0.5) * BIN))
                break
    return found
