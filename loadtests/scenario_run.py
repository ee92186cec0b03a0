"""Runs a scenario: every arm in every repetition over empty caches, in an order that alternates.

An arm is a policy, or an endpoint that runs already. Live over HTTP (`Live`), or the same traffic in virtual time
(`Virtual`, simulated workers only); both give the same records. Called by scenario_command.py and goodput_run.py.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import httpx

from loadtests.comparison import Run, Traffic, Watcher, run_against
from loadtests.drive import Pace
from loadtests.endpoint import TargetError, flush_cache, served_model
from loadtests.fleet import FleetPlan, LocalFleet
from loadtests.measures import summarize
from loadtests.replay import ReplayConfig, replay
from loadtests.replay_source import ReplayTraffic, traffic_of
from loadtests.scenario import Scenario, ScenarioError
from loadtests.traces import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One run of one arm: `position` is when it ran within its repetition, from 0."""

    arm: str
    repetition: int
    position: int
    run: Run


class Source:
    """The requests of a scenario by seed; the last are kept, because every arm gets the same."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self._made: tuple[int, Trace] | None = None

    def requests(self, seed: int) -> Trace:
        """Raises ScenarioError."""
        if self._made is None or self._made[0] != seed:
            self._made = seed, self.scenario.traffic(seed)
        return self._made[1]


class Driver(Protocol):
    """What runs an arm once."""

    @property
    def source(self) -> Source:
        """What it sends."""
        ...

    async def run(self, arm: str, seed: int, rate: float, watcher: Watcher, runs: list[Run]) -> None:
        """Appends the run of the traffic of `seed` (0 is the scenario's own), arrivals `rate` times as often; also when
        it is cancelled. Raises TargetError, ChildExited or ScenarioError.
        """
        ...


def order(arms: Sequence[str], repetitions: int) -> list[tuple[int, str]]:
    """(repetition, arm) as they run: every second repetition goes backwards, so that what drifts meets all alike."""
    return [
        (repetition, arm)
        for repetition in range(repetitions)
        for arm in (arms if repetition % 2 == 0 else tuple(reversed(arms)))
    ]


async def run_scenario(scenario: Scenario, driver: Driver, watcher: Watcher, passes: list[Pass]) -> None:
    """Appends a Pass for every run, also for one that is cancelled."""
    for index, (repetition, arm) in enumerate(order(scenario.arms, scenario.repetitions)):
        runs: list[Run] = []
        try:
            await driver.run(arm, repetition, 1.0, watcher, runs)
        finally:
            position = index % len(scenario.arms)
            passes.extend(Pass(arm=arm, repetition=repetition, position=position, run=run) for run in runs)


class Live:
    """Over HTTP, against workers and routers that are started, or that run already. Use `running`."""

    def __init__(self, scenario: Scenario, fleet: LocalFleet | None) -> None:
        self._scenario = scenario
        self._fleet = fleet
        self.source = Source(scenario)

    @classmethod
    @asynccontextmanager
    async def running(cls, scenario: Scenario) -> AsyncIterator[Live]:
        """Starts simulated workers, or checks that what should run answers. Raises ChildExited or TargetError."""
        spec = scenario.fleet
        if spec.endpoints:
            await _check_endpoints(spec.endpoints, _api_key(scenario))
            yield cls(scenario, None)
            return
        options = spec.worker_options
        if spec.kv_capacity_tokens is not None:
            options = ("--kv-capacity-tokens", str(spec.kv_capacity_tokens), *options)
        plan = FleetPlan(
            workers=spec.workers,
            speed=spec.speed,
            seed=scenario.seed,
            worker_options=options,
            router_options=spec.router_options,
            ready_within_s=spec.ready_within_s,
            worker_urls=spec.worker_urls,
        )
        async with LocalFleet.running(plan) as fleet:
            yield cls(scenario, fleet)

    async def run(self, arm: str, seed: int, rate: float, watcher: Watcher, runs: list[Run]) -> None:
        traffic = _traffic(self.source, seed, rate)
        if self._fleet is None:
            await self._flush()
            url = self._scenario.fleet.endpoints[arm].rstrip("/").removesuffix("/v1")
            await run_against(traffic, arm, url, watcher, runs)
        else:
            async with self._fleet.router(arm) as url:
                await run_against(traffic, arm, url, watcher, runs, guard=self._fleet.guard)

    async def _flush(self) -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            for url in self._scenario.fleet.worker_urls:
                await flush_cache(client, url.rstrip("/"))


class Virtual:
    """On a virtual clock, without sockets: the same traffic through the same policies on the same engines."""

    def __init__(self, scenario: Scenario) -> None:
        """Raises ScenarioError for what only exists in the real world."""
        if scenario.fleet.endpoints or scenario.fleet.worker_urls:
            raise ScenarioError(
                f"{scenario.name}: virtual time has simulated workers only; the scenario names 'endpoints' or "
                "'worker_urls'"
            )
        self._scenario = scenario
        self.source = Source(scenario)
        self._made: dict[int, ReplayTraffic] = {}

    async def run(self, arm: str, seed: int, rate: float, watcher: Watcher, runs: list[Run]) -> None:
        spec = self._scenario.fleet
        if seed not in self._made:
            self._made = {seed: traffic_of(self.source.requests(seed), self._scenario.name)}
        traffic = self._made[seed]
        config = ReplayConfig(
            workers=spec.workers,
            rate=rate * self._scenario.workload.rate,
            seed=self._scenario.seed + seed,
            capacity_tokens=spec.kv_capacity_tokens or ReplayConfig().capacity_tokens,
        )
        watcher.begin(arm, len(traffic.requests))
        await asyncio.sleep(0)  # where Ctrl-C is heard
        done = replay(traffic, arm, config, on_result=watcher.result)
        workers = list(done.summary.requests_by_worker)
        summary = summarize(done.results, workers=workers)
        runs.append(Run(name=arm, results=done.results, workers=workers, summary=summary, complete=True))


def _traffic(source: Source, seed: int, rate: float) -> Traffic:
    scenario, spec = source.scenario, source.scenario.workload
    return Traffic(
        requests=source.requests(seed),
        pace=Pace(rate=rate * spec.rate, speed=scenario.fleet.speed, max_in_flight=spec.max_in_flight),
        seed=scenario.seed + seed,
        model=scenario.fleet.model,
        api_key=_api_key(scenario),
        timeout_s=spec.timeout_s,
    )


def _api_key(scenario: Scenario) -> str | None:
    """Raises ScenarioError when the variable is not set."""
    name = scenario.fleet.api_key_env
    if name is None:
        return None
    key = os.environ.get(name)
    if not key:
        raise ScenarioError(f"{scenario.name}: fleet.api_key_env names {name}, which is not set; export {name}=...")
    return key


async def _check_endpoints(endpoints: Mapping[str, str], api_key: str | None) -> None:
    """All of them before anything runs. Raises TargetError, which names the endpoint."""
    headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    async with httpx.AsyncClient(trust_env=False, headers=headers) as client:
        for name, url in endpoints.items():
            try:
                await served_model(client, url.rstrip("/").removesuffix("/v1"))
            except TargetError as error:
                raise TargetError(f"endpoint '{name}': {error}") from error
