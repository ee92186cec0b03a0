"""The last ten minutes in steps of five seconds: requests, failures, TTFT, tokens, and the same per worker. Bounded.

Counts Outcomes from the backlog, O(1) a request. Read by the dashboard. Not here: Prometheus (metrics), single requests
(recent_requests).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from math import exp, floor, log

from router.clock import Clock
from router.records import Outcome
from router.telemetry.backlog import Backlog
from router.types import WorkerId

STEP_S = 5.0
STEPS = 120
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
        self.ttft: Counter[int] = Counter()

    def add(self, outcomes: Sequence[Outcome]) -> None:
        self.requests += len(outcomes)
        self.failed += sum([one.status >= 500 for one in outcomes])
        ttft = self.ttft
        for ttft_s in [one.ttft_s for one in outcomes]:
            if ttft_s is not None:
                place = floor(log(ttft_s) / BIN) if ttft_s > 1e-6 else LOWEST
                ttft[place] = ttft.get(place, 0) + 1
        for cached, prompt in [(one.cached_tokens, one.prompt_tokens) for one in outcomes]:
            if cached is not None and prompt is not None:
                self.prompt_tokens += prompt
                self.cached_tokens += cached


def place_of(outcome: Outcome) -> int:
    """The step in which it ended."""
    return int((outcome.at_s + outcome.e2e_s) / STEP_S)


class Traffic:
    """Steps by worker (None: no worker was chosen); step i of the ring holds the time that ends with it."""

    def __init__(self, clock: Clock, backlog: Backlog) -> None:
        self._clock = clock
        self._backlog = backlog
        self._steps: dict[int, dict[WorkerId | None, Step]] = {}
        backlog.counters.append(self._count)

    def _count(self, outcomes: Sequence[Outcome]) -> None:
        """Each in the step in which it ended."""
        first, last = place_of(outcomes[0]), place_of(outcomes[-1])
        if first == last:
            self._add(first, outcomes)
        else:
            for place, some in groupby(outcomes, place_of):
                self._add(place, list(some))

    def _add(self, place: int, outcomes: Sequence[Outcome]) -> None:
        by_worker: dict[WorkerId | None, list[Outcome]] = {}
        for one in outcomes:
            decision = one.decision
            worker = None if decision is None else decision.worker
            if worker in by_worker:
                by_worker[worker].append(one)
            else:
                by_worker[worker] = [one]
        steps = self._steps.get(place)
        if steps is None:
            steps = self._begin(place)
        for worker, group in by_worker.items():
            step = steps.get(worker)
            if step is None:
                step = steps[worker] = Step()
            step.add(group)

    def _begin(self, place: int) -> dict[WorkerId | None, Step]:
        steps = self._steps[place] = {}
        for old in [each for each in self._steps if each <= place - STEPS]:
            del self._steps[old]
        return steps

    def series(self) -> list[tuple[float, Step]]:
        """(seconds ago, step), oldest first, the one that is still filling last; empty steps included."""
        self._backlog.settle()
        now = int(self._clock() / STEP_S)
        places = range(now - STEPS + 1, now + 1)
        return [((now - place) * STEP_S, _sum(self._steps.get(place, {}).values())) for place in places]

    def last_minute(self, worker: WorkerId) -> Step:
        """What ended on one worker in the last minute."""
        self._backlog.settle()
        now = int(self._clock() / STEP_S)
        steps = [self._steps[place].get(worker) for place in range(now - 11, now + 1) if place in self._steps]
        return _sum(step for step in steps if step is not None)


def _sum(steps: Iterable[Step]) -> Step:
    total = Step()
    for step in steps:
        total.requests += step.requests
        total.failed += step.failed
        total.prompt_tokens += step.prompt_tokens
        total.cached_tokens += step.cached_tokens
        total.ttft.update(step.ttft)
    return total


def quantiles(ttft: Counter[int], shares: tuple[float, ...]) -> list[float | None]:
    """Quantiles in seconds of a histogram of TTFT, within 5 %; None when it is empty."""
    count = ttft.total()
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
