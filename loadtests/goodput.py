"""Goodput search: the highest rate at which a wanted share of requests meets an objective.

Doubles or halves the rate until it lies between one that meets the objective and one that does not, bisects in between,
and confirms the answer with other traffic. Bounded in trials and time. What a trial is, is the caller's: live or
virtual (goodput_run.py). Not here: printing (scenario_table.py).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from loadtests.clock import Clock
from loadtests.scenario_spec import GoodputSpec

WIDEST = 256.0
"""The search ends this many times above or below the rate at which it began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run at one rate. `rate` multiplies the workload's; `requests_per_s` is what that offers, for `arrivals_s`.
    `share` met the objective; a trial that was hopeless is given up early, and then `share` is what it could have
    reached at most.
    """

    rate: float
    seed: int
    requests_per_s: float
    arrivals_s: float
    share: float
    met: bool
    gave_up: bool = False


Measure: TypeAlias = Callable[[float, int], Awaitable[Trial]]
"""Runs one trial at a rate, with the traffic of a seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """What a search found for one arm. `best` met the objective and, if `confirmed`, so did other traffic at its rate;
    None when nothing did. `failed_rate` is the lowest rate that did not. `stopped` says why a search ended early.
    """

    arm: str
    best: Trial | None
    failed_rate: float | None
    confirmed: bool
    stopped: str
    trials: Sequence[Trial]


class _Spent(Exception):
    """No trial or no time is left; its message says which."""


class GoodputSearch:
    """One search. Not reused."""

    def __init__(self, arm: str, measure: Measure, spec: GoodputSpec, clock: Clock) -> None:
        self._arm = arm
        self._measure = measure
        self._spec = spec
        self._clock = clock
        self._until_s = clock() + spec.max_minutes * 60
        self._trials: list[Trial] = []
        self._confirmed = False
        self._stopped = "interrupted"

    async def run(self) -> Goodput:
        """The search to its end."""
        try:
            await self._bracket()
            while not self._confirmed:
                await self._bisect()
                if self._low is None:
                    break
                await self._confirm(self._low)
            self._stopped = ""
        except _Spent as error:
            self._stopped = str(error)
        return self.found()

    def found(self) -> Goodput:
        """What is known so far."""
        return Goodput(
            arm=self._arm,
            best=self._low,
            failed_rate=self._high,
            confirmed=self._confirmed,
            stopped=self._stopped,
            trials=tuple(self._trials),
        )

    @property
    def _high(self) -> float | None:
        """The lowest rate that failed with any traffic."""
        return min((trial.rate for trial in self._trials if not trial.met), default=None)

    @property
    def _low(self) -> Trial | None:
        """The trial that met the objective at the highest rate below all that failed."""
        high = self._high
        met = [trial for trial in self._trials if trial.met and (high is None or trial.rate < high)]
        return max(met, key=lambda trial: trial.rate, default=None)

    async def _bracket(self) -> None:
        """Doubles while the objective is met, halves while it is not."""
        rate = self._spec.start_rate
        step = 2.0 if (await self._trial(rate)).met else 0.5
        while 1 / WIDEST < rate / self._spec.start_rate < WIDEST:
            rate *= step
            if (await self._trial(rate)).met == (step < 1):
                return

    async def _bisect(self) -> None:
        while True:
            low, high = self._low, self._high
            if high is None:
                return
            if low is None:  # a confirmation failed at the lowest rate that was met
                if high <= self._spec.start_rate / WIDEST:
                    return
                await self._trial(high / 2)
            elif high / low.rate <= 1 + self._spec.tolerance:
                return
            else:
                await self._trial(math.sqrt(low.rate * high))

    async def _confirm(self, trial: Trial) -> None:
        """Other traffic at the same rate. When it fails, the rate becomes one that failed."""
        for number in range(self._spec.confirmations):
            if not (await self._trial(trial.rate, seed=1 + number)).met:
                return
        self._confirmed = True

    async def _trial(self, rate: float, seed: int = 0) -> Trial:
        if len(self._trials) >= self._spec.max_trials:
            raise _Spent(f"after {self._spec.max_trials} trials (goodput.max_trials)")
        if self._clock() > self._until_s:
            raise _Spent(f"after {self._spec.max_minutes:g} minutes (goodput.max_minutes)")
        trial = await self._measure(rate, seed)
        self._trials.append(trial)
        return trial
