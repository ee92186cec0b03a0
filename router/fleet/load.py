"""Polls every server's `GET /v1/loads`: one LoadReport per worker, with its age, and a restart where counters fall.

One loop per server, for all its DP ranks. A server that has no such route is asked rarely; a slow or failing one
keeps its last report, which grows old visibly. Called by app; asks by a function that app hands in, because httpx costs
more CPU for a poll than the router for three requests. Not here: probes (health).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from router.clock import Clock
from router.errors import WorkerError
from router.fleet.registry import Registry
from router.fleet.worker import Worker, WorkerState
from router.knob import knob, require
from router.records import FleetEvent
from router.spawn import Spawn
from router.types import LoadReport, WorkerId, WorkerJoined

log = logging.getLogger(__name__)

Get = Callable[[Worker, str, float], Awaitable[tuple[int, bytes]]]
"""Asks a worker for a path, within so many seconds; status and body. Raises WorkerError."""
PATH = "/v1/loads?include=core"
UNKNOWN_ROUTE_RETRY_S = 30.0
"""A server that answers 404 is too old for the route; asked again in case it is replaced by a newer one."""
MAX_TOKENS = 2**40
"""Larger figures are nonsense, not load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadConfig:
    interval_s: float = knob(1.0, "seconds between two load reports of a worker; 0 asks for none")
    timeout_s: float = knob(5.0, "seconds a load report may take; the worker's scheduler answers between two steps")

    def __post_init__(self) -> None:
        require(self.interval_s >= 0, "interval_s must not be negative")
        require(self.timeout_s > 0, "timeout_s must be positive")


class LoadMonitor:
    """Keeps every worker's `load` fresh. Tasks are started through `spawn`, which the app's task group owns."""

    def __init__(
        self, config: LoadConfig, registry: Registry, get: Get, clock: Clock, spawn: Spawn
    ) -> None:
        self._config = config
        self._registry = registry
        self._get = get
        self._clock = clock
        self._spawn = spawn
        self._watched: set[str] = set()
        self._prefilled: dict[WorkerId, int] = {}
        registry.listen(self._observe, WorkerJoined)

    def watch(self, worker: Worker) -> None:
        """Poll this worker's server until all its workers are gone."""
        if self._config.interval_s > 0 and worker.base_url not in self._watched:
            self._watched.add(worker.base_url)
            self._spawn(self._watch(worker.base_url))

    def _observe(self, event: FleetEvent) -> None:
        if isinstance(event, WorkerJoined):
            self.watch(self._registry.get(event.worker))

    async def _watch(self, base_url: str) -> None:
        try:
            while workers := self._registry.at(base_url):
                wait_s = self._config.interval_s
                if workers[0].state is not WorkerState.STARTING:
                    wait_s = await self.poll(workers[0])
                await asyncio.sleep(wait_s)
        finally:
            self._watched.discard(base_url)

    async def poll(self, worker: Worker) -> float:
        """Ask its server once; returns the seconds until the next time. Never raises for what a worker does."""
        try:
            status, body = await self._get(worker, PATH, self._config.timeout_s)
            if status == 404:
                return max(UNKNOWN_ROUTE_RETRY_S, self._config.interval_s)
            loads = json.loads(body)["loads"] if status == 200 else None
        except (WorkerError, ValueError, KeyError, TypeError) as error:
            log.debug("no load report of %s: %s", worker.server, type(error).__name__)
            return self._config.interval_s
        for load in loads if isinstance(loads, list) else ():
            if isinstance(load, dict):
                self._take(worker.base_url, load)
        return self._config.interval_s

    def _take(self, base_url: str, found: Mapping[str, Any]) -> None:
        worker = next((each for each in self._registry.at(base_url) if each.rank in (None, found.get("dp_rank"))), None)
        report = load_of(found, self._clock())
        if worker is None or report is None or (worker.rank is None and found.get("dp_rank", 0) != 0):
            return
        self._notice_restart(worker, found.get("total_prefill_uncached_tokens"))
        self._registry.report_load(worker, report)

    def _notice_restart(self, worker: Worker, prefilled: Any) -> None:
        """A count of all tokens ever prefilled can only fall when the process is a new one."""
        if type(prefilled) is not int:
            return
        before = self._prefilled.get(worker.id, 0)
        self._prefilled[worker.id] = prefilled
        if prefilled < before:
            self._registry.restarted(worker, "its counters started again")


def load_of(found: Mapping[str, Any], now_s: float) -> LoadReport | None:
    """One rank's entry of `/v1/loads`; None when what every report needs is missing or absurd."""
    running, waiting = _tokens(found.get("num_running_reqs")), _tokens(found.get("num_waiting_reqs"))
    used, capacity = _tokens(found.get("num_used_tokens")), _tokens(found.get("max_total_num_tokens"))
    if running is None or waiting is None or used is None or not capacity:
        return None
    usage = found.get("token_usage")
    return LoadReport(
        at_s=now_s,
        running=running,
        waiting=waiting,
        waiting_uncached_tokens=_tokens(found.get("num_waiting_uncached_tokens")),
        used_tokens=used,
        capacity_tokens=capacity,
        max_running=_tokens(found.get("max_running_requests")),
        token_usage=float(usage) if isinstance(usage, int | float) and 0 <= usage <= 1 else None,
    )


def _tokens(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None
