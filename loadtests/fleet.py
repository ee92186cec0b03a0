"""A fleet on this machine: simulated workers that stay, and a router that is started anew for each policy.

Everything runs as processes of the other packages' own commands, on free loopback ports; HTTP is the only contract.
Called by comparison.py. Not here: what is sent.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx

from loadtests.endpoint import TargetError, all_ready, flush_cache, is_ok, served_model, wait_for
from loadtests.processes import Child, Processes

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPlan:
    """What to start. `worker_command` and `router_command` are the programs before their `--port` and the like.

    `ready_within_s` bounds each start. `worker_options` and `router_options` are handed on as they are. With
    `worker_urls` no worker is started: those run already, and must answer.
    """

    workers: int = 4
    speed: float = 1.0
    seed: int = 0
    worker_options: Sequence[str] = ()
    router_options: Sequence[str] = ()
    worker_command: Sequence[str] = (sys.executable, "-m", "workers", "simulate")
    router_command: Sequence[str] = (sys.executable, "-m", "router", "serve")
    ready_within_s: float = 30.0
    worker_urls: Sequence[str] = ()


class LocalFleet:
    """Running workers and the means to put a router before them. Use `running`."""

    def __init__(self, plan: FleetPlan, processes: Processes, client: httpx.AsyncClient) -> None:
        self._plan = plan
        self._processes = processes
        self._client = client
        self.worker_urls: list[str] = []

    @classmethod
    @asynccontextmanager
    async def running(cls, plan: FleetPlan) -> AsyncIterator[LocalFleet]:
        """The workers of `plan`, ready; all stopped at the end. Raises ChildExited or TargetError."""
        async with AsyncExitStack() as stack:
            processes = await stack.enter_async_context(Processes())
            client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
            fleet = cls(plan, processes, client)
            if plan.worker_urls:
                await fleet._find_workers()
            else:
                await fleet._start_workers()
            yield fleet

    @asynccontextmanager
    async def router(self, policy: str) -> AsyncIterator[str]:
        """The URL of a router with `policy` before all workers, whose caches are empty; stopped at the end. A policy
        may carry parameters: "prefix_match:load_factor=2,load_slack=8".
        """
        await self.flush()
        port = _free_ports(1)[0]
        url = f"http://127.0.0.1:{port}"
        arguments = ["--host", "127.0.0.1", "--port", str(port), *_policy_arguments(policy)]
        for worker in self.worker_urls:
            arguments += ["--worker", worker]
        command = [*self._plan.router_command, *arguments, *self._plan.router_options]
        child = await self._processes.start(f"router ({policy})", command, _environment())
        try:
            await self._ready(child, f"{url}/ready", f"{url}/workers")
            yield url
        finally:
            await self._processes.stop([child])

    async def flush(self) -> None:
        """Empties the caches of all workers, as soon as they are idle. Raises ChildExited or TargetError."""
        for url in self.worker_urls:
            await self.guard(flush_cache(self._client, url))

    async def guard(self, work: Awaitable[T]) -> T:
        """The result of `work`. Raises ChildExited as soon as a worker or the router ends."""
        return await self._processes.guard(work)

    async def _find_workers(self) -> None:
        for url in self._plan.worker_urls:
            await served_model(self._client, url.rstrip("/"))
            self.worker_urls.append(url.rstrip("/"))

    async def _start_workers(self) -> None:
        children = []
        for index, port in enumerate(_free_ports(self._plan.workers)):
            arguments = ["--host", "127.0.0.1", "--port", str(port), "--seed", str(self._plan.seed)]
            arguments += ["--speed", f"{self._plan.speed:g}", "--log-level", "warning", *self._plan.worker_options]
            command = [*self._plan.worker_command, *arguments]
            children.append(await self._processes.start(f"worker {index}", command, _environment()))
            self.worker_urls.append(f"http://127.0.0.1:{port}")
        for child, url in zip(children, self.worker_urls, strict=True):
            await self._ready(child, f"{url}/health")

    async def _ready(self, child: Child, url: str, workers_url: str | None = None) -> None:
        within_s = self._plan.ready_within_s
        try:
            await self.guard(wait_for(self._client, url, ok=is_ok, within_s=within_s))
            if workers_url is not None:
                ready = all_ready(len(self.worker_urls))
                await self.guard(wait_for(self._client, workers_url, ok=ready, within_s=within_s))
        except TargetError as error:
            raise TargetError(f"{child.name}: {error}. Its last lines:\n{child.tail()}") from error


def _policy_arguments(policy: str) -> list[str]:
    """The router's flags for "name" or "name:param=value,param=value"."""
    name, _, parameters = policy.partition(":")
    arguments = ["--policy", name]
    for setting in filter(None, parameters.split(",")):
        parameter, _, value = setting.partition("=")
        arguments += [f"--{name}-{parameter}".replace("_", "-"), value]
    return arguments


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _environment() -> dict[str, str]:
    """Ours, with this source tree importable, so that a checkout works without being installed."""
    root = str(Path(__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
