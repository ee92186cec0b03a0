"""Active probes: one loop per worker, and what its answers mean for the worker's state.

SGLang's `/health` runs a one-token generation and looks once a second for its result: it needs at least a second when
all is well, and up to 20 s behind a long prefill. So a slow answer is no sign of death; a refused connection is.
Called by app; talks httpx. Not here: what dispatch learns from requests (it calls `suspect`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import httpx

from router.fleet.registry import Registry
from router.fleet.server_info import facts_of
from router.fleet.worker import Worker, WorkerState
from router.knob import knob, require
from router.types import AttemptFailed, FleetEvent, WorkerId, WorkerJoined, WorkerLeft

log = logging.getLogger(__name__)

Spawn = Callable[[Coroutine[Any, Any, None]], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthConfig:
    interval_s: float = knob(5.0, "seconds between two probes of a ready worker")
    retry_interval_s: float = knob(1.0, "seconds between two probes of a worker that is not ready")
    timeout_s: float = knob(25.0, "seconds a probe may take; SGLang itself gives up after 20")
    failures_to_degrade: int = knob(3, "failed probes in a row that make a ready worker degraded")
    path: str = knob("/health", "what is probed on a worker")
    expand_ranks: bool = knob(True, "make each data-parallel rank of a server a worker of its own")

    def __post_init__(self) -> None:
        require(self.interval_s > 0 and self.retry_interval_s > 0, "intervals must be positive")
        require(self.timeout_s > 1.0, "timeout_s must be over 1 s: SGLang's /health takes at least that long")
        require(self.failures_to_degrade >= 1, "failures_to_degrade must be at least 1")
        require(self.path.startswith("/"), "path must start with '/'")


class HealthMonitor:
    """Keeps every worker's state true. Tasks are started through `spawn`, which the app's task group owns.

    One loop per server: what a probe says holds for all its data-parallel ranks.
    """

    def __init__(self, config: HealthConfig, registry: Registry, client: httpx.AsyncClient, spawn: Spawn) -> None:
        self._config = config
        self._registry = registry
        self._client = client
        self._spawn = spawn
        self._wake: dict[str, asyncio.Event] = {}
        self._url_of: dict[WorkerId, str] = {}
        registry.listen(self._observe)

    def watch(self, worker: Worker) -> None:
        """Probe this worker's server until all its workers are gone."""
        self._url_of[worker.id] = worker.base_url
        if worker.base_url not in self._wake:
            self._wake[worker.base_url] = asyncio.Event()
            self._spawn(self._watch(worker.base_url))

    def _observe(self, event: FleetEvent) -> None:
        match event:
            case WorkerJoined():
                self.watch(self._registry.get(event.worker))
            case WorkerLeft():
                self._url_of.pop(event.worker, None)
            case AttemptFailed():
                wake = self._wake.get(self._url_of.get(event.worker, ""))
                if wake is not None:
                    wake.set()  # look at once: a request has just failed there
            case _:
                pass

    async def _watch(self, base_url: str) -> None:
        wake = self._wake[base_url]
        try:
            while workers := self._registry.at(base_url):
                await self.probe(workers[0])
                ready = any(worker.state is WorkerState.READY for worker in self._registry.at(base_url))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._config.interval_s if ready else self._config.retry_interval_s):
                        await wake.wait()
                wake.clear()
        finally:
            self._wake.pop(base_url, None)

    async def probe(self, worker: Worker) -> None:
        """Ask its server once and act on the answer. Never raises for what a worker does."""
        try:
            response = await self._client.get(
                worker.base_url + self._config.path, timeout=self._config.timeout_s, headers=dict(worker.extra_headers)
            )
        except httpx.ConnectError as error:
            self._unreachable(worker.base_url, f"connection refused or impossible: {error}")
        except httpx.HTTPError as error:
            self._failed(worker.base_url, f"{self._config.path}: {type(error).__name__}")
        else:
            if response.is_success:
                await self._answered(worker.base_url)
            else:
                self._failed(worker.base_url, f"{self._config.path} answered {response.status_code}")

    def _unreachable(self, base_url: str, why: str) -> None:
        """Nobody listens there: no reason to wait for a third proof."""
        for worker in self._registry.at(base_url):
            worker.failures += 1
            worker.was_unreachable = True
            if worker.state is WorkerState.READY:
                self._registry.set_state(worker, WorkerState.DEGRADED, why)
            else:
                worker.state_reason = why

    def _failed(self, base_url: str, why: str) -> None:
        for worker in self._registry.at(base_url):
            worker.failures += 1
            if worker.state is WorkerState.READY and worker.failures >= self._config.failures_to_degrade:
                self._registry.set_state(worker, WorkerState.DEGRADED, f"{worker.failures} failed probes, last: {why}")

    async def _answered(self, base_url: str) -> None:
        workers = self._registry.at(base_url)
        if any(_is_unread(worker) for worker in workers):
            await self._read_models(base_url)
            await self._read_facts(base_url)
        for worker in self._registry.at(base_url):
            worker.failures = 0
            if worker.was_unreachable and worker.state is WorkerState.DEGRADED:
                self._registry.restarted(worker, "nobody listened there for a time")
            worker.was_unreachable = False
            self._registry.set_state(worker, WorkerState.READY, f"{self._config.path} answered")

    async def _get(self, base_url: str, path: str) -> Any:
        """The JSON there. Raises httpx.HTTPError and ValueError."""
        workers = self._registry.at(base_url)
        headers = dict(workers[0].extra_headers) if workers else {}
        response = await self._client.get(base_url + path, headers=headers)
        response.raise_for_status()
        return response.json()

    async def _read_models(self, base_url: str) -> None:
        try:
            found = (await self._get(base_url, "/v1/models"))["data"]
            cards = tuple(card for card in found if isinstance(card, dict))
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            log.warning("%s does not list its models (%s): it gets requests for any", base_url, error)
            return
        for worker in self._registry.at(base_url):
            self._registry.set_models(worker, cards)

    async def _read_facts(self, base_url: str) -> None:
        """What the server says of itself; a server with several data-parallel ranks becomes as many workers."""
        info: Any = None
        for path in ("/server_info", "/get_server_info"):
            try:
                info = await self._get(base_url, path)
                break
            except (httpx.HTTPError, ValueError) as error:
                log.info("%s%s cannot be read: %s", base_url, path, type(error).__name__)
        if not isinstance(info, dict):
            return
        facts = facts_of(info)
        if self._config.expand_ranks:
            self._registry.set_ranks(base_url, facts.dp_size)
        for worker in self._registry.at(base_url):
            self._registry.set_facts(worker, facts)


def _is_unread(worker: Worker) -> bool:
    """Whether its models and facts must be read, again or for the first time."""
    return worker.models is None or worker.facts_stale or worker.state is not WorkerState.READY
