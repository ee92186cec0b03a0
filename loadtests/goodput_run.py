"""Trials of a goodput search on a scenario's driver, live or virtual; hopeless ones are given up early.

Called by scenario_command.py. Not here: which rates are tried (goodput.py).
"""

from __future__ import annotations

import time

from loadtests.comparison import Run, Watcher
from loadtests.goodput import Goodput, GoodputSearch, Trial
from loadtests.measures import RequestResult
from loadtests.scenario import Scenario
from loadtests.scenario_run import Driver
from loadtests.scenario_spec import ObjectiveSpec


class _Hopeless(Exception):
    """So many requests missed the objective that the wanted share is out of reach."""


async def search_goodput(
    scenario: Scenario, objective: ObjectiveSpec, driver: Driver, watcher: Watcher, found: list[Goodput]
) -> None:
    """Appends one Goodput per arm, also of a search that is cancelled once it has a trial. Raises TargetError,
    ChildExited or ScenarioError.
    """
    for arm in scenario.arms:
        trials = _Trials(arm, scenario, objective, driver, watcher)
        search = GoodputSearch(arm, trials.run, scenario.goodput, time.monotonic)
        try:
            await search.run()
        finally:
            found.append(search.found())


class _Trials:
    """Of one arm."""

    def __init__(
        self, arm: str, scenario: Scenario, objective: ObjectiveSpec, driver: Driver, watcher: Watcher
    ) -> None:
        self._arm = arm
        self._scenario = scenario
        self._objective = objective
        self._driver = driver
        self._watcher = watcher

    async def run(self, rate: float, seed: int) -> Trial:
        """One trial; its last requests are not waited for when it is hopeless."""
        requests = self._driver.source.requests(seed)
        arrivals = [request.arrival_s for request in requests]
        span_s = max(arrivals) - min(arrivals)
        watch = _Misses(self._watcher, self._objective, f"{self._arm}, rate x{rate:.3g}", len(requests))
        runs: list[Run] = []
        gave_up = False
        try:
            await self._driver.run(self._arm, seed, rate, watch, runs)
        except* _Hopeless:
            gave_up = True
        share = 1 - watch.missed / len(requests)
        arrivals_s = span_s / (rate * self._scenario.workload.rate)
        return Trial(
            rate=rate,
            seed=seed,
            requests_per_s=len(requests) / arrivals_s if span_s else 0.0,
            arrivals_s=arrivals_s,
            share=share,
            met=not gave_up and share >= self._objective.share,
            gave_up=gave_up,
        )


class _Misses:
    """A Watcher that counts requests which miss the objective, and raises _Hopeless when they are too many."""

    def __init__(self, watcher: Watcher, objective: ObjectiveSpec, name: str, requests: int) -> None:
        self._watcher = watcher
        self._limits = objective.limits
        self._allowed = (1 - objective.share) * requests
        self._name = name
        self.missed = 0

    def begin(self, name: str, requests: int) -> None:
        self._watcher.begin(self._name, requests)

    def result(self, result: RequestResult) -> None:
        self._watcher.result(result)
        self.missed += not self._limits.met_by(result)
        if self.missed > self._allowed + 1e-9:
            raise _Hopeless
