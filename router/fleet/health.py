"""Active probes: one loop per worker, and what its answers mean for the worker's state.

SGLang's `/health` runs a one-token generation and looks once a second for its result: it needs at least a second when
all is well, and up to 20 s behind a long prefill. So a slow answer is no sign of death; a refused connection is.
Called by app; talks httpx. Not here: what dispatch learns from requests (it calls `suspect`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import httpx

from router.fleet.registry import Registry
from router.fleet.worker import Worker, WorkerState
from router.knob import knob, require
from router.types import AttemptFailed, FleetEvent, WorkerId, WorkerJoined

log = logging.getLogger(__name__)

Spawn = Callable[[Coroutine[Any, Any, None]], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthConfig:
    interval_s: float = knob(5.0, "seconds between two probes of a ready worker")
    retry_interval_s: float = knob(1.0, "seconds between two probes of a worker that is not ready")
    timeout_s: float = knob(25.0, "seconds a probe may take; SGLang itself gives up after 20")
    failures_to_degrade: int = knob(3, "failed probes in a row that make a ready worker degraded")
    path: str = knob("/health", "what is probed on a worker")

    def __post_init__(self) -> None:
        require(self.interval_s > 0 and self.retry_interval_s > 0, "intervals must be positive")
        require(self.timeout_s > 1.0, "timeout_s must be over 1 s: SGLang's /health takes at least that long")
        require(self.failures_to_degrade >= 1, "failures_to_degrade must be at least 1")
        require(self.path.startswith("/"), "path must start with '/'")


class HealthMonitor:
    """Keeps every worker's state true. Tasks are started through `spawn`, which the app's task group owns."""

    def __init__(self, config: HealthConfig, registry: Registry, client: httpx.AsyncClient, spawn: Spawn) -> None:
        self._config = config
        self._registry = registry
        self._client = client
        self._spawn = spawn
        self._wake: dict[WorkerId, asyncio.Event] = {}
        registry.listen(self._observe)

    def watch(self, worker: Worker) -> None:
        """Probe this worker until it is gone."""
        self._wake[worker.id] = asyncio.Event()
        self._spawn(self._watch(worker))

    def _observe(self, event: FleetEvent) -> None:
        if isinstance(event, WorkerJoined):
            self.watch(self._registry.get(event.worker))
        elif isinstance(event, AttemptFailed) and event.worker in self._wake:
            self._wake[event.worker].set()  # look at once: a request has just failed there

    async def _watch(self, worker: Worker) -> None:
        wake = self._wake[worker.id]
        while worker.state is not WorkerState.GONE:
            await self.probe(worker)
            ready = worker.state is WorkerState.READY
            try:
                async with asyncio.timeout(self._config.interval_s if ready else self._config.retry_interval_s):
                    await wake.wait()
            except TimeoutError:
                pass
            wake.clear()
        self._wake.pop(worker.id, None)

    async def probe(self, worker: Worker) -> None:
        """Ask once and act on the answer. Never raises for what a worker does."""
        try:
            response = await self._client.get(
                worker.base_url + self._config.path, timeout=self._config.timeout_s, headers=dict(worker.extra_headers)
            )
        except httpx.ConnectError as error:
            self._unreachable(worker, f"connection refused or impossible: {error}")
        except httpx.HTTPError as error:
            self._failed(worker, f"{self._config.path}: {type(error).__name__}")
        else:
            if response.is_success:
                await self._answered(worker)
            else:
                self._failed(worker, f"{self._config.path} answered {response.status_code}")

    def _unreachable(self, worker: Worker, why: str) -> None:
        """Nobody listens there: no reason to wait for a third proof."""
        worker.failures += 1
        worker.was_unreachable = True
        if worker.state is WorkerState.READY:
            self._registry.set_state(worker, WorkerState.DEGRADED, why)
        else:
            worker.state_reason = why

    def _failed(self, worker: Worker, why: str) -> None:
        worker.failures += 1
        if worker.state is WorkerState.READY and worker.failures >= self._config.failures_to_degrade:
            self._registry.set_state(worker, WorkerState.DEGRADED, f"{worker.failures} failed probes, last: {why}")

    async def _answered(self, worker: Worker) -> None:
        worker.failures = 0
        if worker.was_unreachable and worker.state is WorkerState.DEGRADED:
            self._registry.cache_cleared(worker)  # it was restarted: what we knew of its cache is gone
        worker.was_unreachable = False
        if worker.models is None or worker.state is not WorkerState.READY:
            await self._read_models(worker)
        self._registry.set_state(worker, WorkerState.READY, f"{self._config.path} answered")

    async def _read_models(self, worker: Worker) -> None:
        try:
            response = await self._client.get(worker.base_url + "/v1/models", headers=dict(worker.extra_headers))
            response.raise_for_status()
            cards = response.json()["data"]
            self._registry.set_models(worker, tuple(card for card in cards if isinstance(card, dict)))
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            log.warning("worker %s does not list its models (%s): it gets requests for any", worker.id, error)
