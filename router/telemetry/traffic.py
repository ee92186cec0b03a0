"""The last ten minutes in steps of five seconds: requests, failures, TTFT, tokens, and the same per worker. Bounded.

Counts Outcomes from the backlog, O(1) a request. Read by the dashboard. Not here: Prometheus (metrics), single requests
(recent_requests).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


class Traffic:
    """Steps by worker (None: no worker was chosen); step i of the ring holds the time that ends with it."""

    def __init__(self, clock: Clock, backlog: Backlog) -> None:
        self._clock = clock
        self._backlog = backlog
        self._steps: dict[int, dict[WorkerId | None, Step]] = {}
        backlog.counters.append(self._count)

    def _count(self, outcomes: Sequence[Outcome]) -> None:
        """Each in the step in which it ended."""
        for one in outcomes:
            place, decision = int((one.at_s + one.e2e_s) / STEP_S), one.decision
            worker = None if decision is None else decision.worker
            steps = self._steps.get(place)
            if steps is None:
                steps = self._begin(place)
            step = steps.get(worker)
            if step is None:
                step = steps[worker] = Step()
            step.add(one)

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
        for place, count in step.ttft.items():
            total.ttft[place] = total.ttft.get(place, 0) + count
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
