"""Active probes: two loops per server. One asks its `/health`, the other looks once a second whether it still listens.

SGLang's `/health` runs a one-token generation and looks once a second for its result: it needs at least a second when
all is well, and up to 20 s behind a long prefill. So a slow answer is no sign of death; a refused connection is.
Called by app, which hands in how to ask what is asked again and again (load says why); the rest is httpx and, for the
second loop, plain TCP. Not here: what follows from an answer (vitals), what requests say (judge).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import httpx

from router.clock import Clock, monotonic
from router.errors import WorkerBusy, WorkerError, WorkerUnreachable
from router.fleet.listening import accepts
from router.fleet.load import Get
from router.fleet.registry import Registry
from router.fleet.server_info import facts_of
from router.fleet.vitals import HealthConfig
from router.fleet.worker import Worker, WorkerState
from router.records import FleetEvent
from router.spawn import Spawn
from router.types import AttemptFailed, WorkerId, WorkerJoined, WorkerLeft

log = logging.getLogger(__name__)



class HealthMonitor:
    """Keeps every worker's state true. Tasks are started through `spawn`, which the app's task group owns.

    One loop per server: what a probe says holds for all its data-parallel ranks.
    """

    def __init__(
        self,
        config: HealthConfig,
        registry: Registry,
        client: httpx.AsyncClient,
        get: Get,
        spawn: Spawn,
        clock: Clock = monotonic,
    ) -> None:
        self._config = config
        self._registry = registry
        self._client = client
        self._ask = get
        self._spawn = spawn
        self._clock = clock
        self._wake: dict[str, asyncio.Event] = {}
        self._url_of: dict[WorkerId, str] = {}
        registry.listen(self._observe, WorkerJoined, WorkerLeft, AttemptFailed)

    def watch(self, worker: Worker) -> None:
        """Probe this worker's server until all its workers are gone."""
        self._url_of[worker.id] = worker.base_url
        if worker.base_url not in self._wake:
            self._wake[worker.base_url] = asyncio.Event()
            self._spawn(self._watch(worker.base_url))
            if self._config.connect_interval_s > 0:
                self._spawn(self._look(worker.base_url))

    def _observe(self, event: FleetEvent) -> None:
        match event:
            case WorkerJoined():
                self.watch(self._registry.get(event.worker))
            case WorkerLeft():
                self._url_of.pop(event.worker, None)
            case AttemptFailed() if event.code != WorkerBusy.code:
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

    async def _look(self, base_url: str) -> None:
        """Every second: does it listen, does what it holds move."""
        while workers := self._registry.at(base_url):
            if any(worker.state is WorkerState.READY for worker in workers):
                await self.check_listening(base_url)
            self.check_stalls(base_url)
            await asyncio.sleep(self._config.connect_interval_s)

    async def _listens_again(self, base_url: str) -> bool:
        try:
            await accepts(base_url, self._config.connect_timeout_s)
        except OSError as error:  # a TimeoutError is one
            self._no_connection(base_url, error)
            return False
        return True

    def _no_connection(self, base_url: str, error: OSError) -> None:
        self._unreachable(base_url, f"connection refused or impossible: {error.strerror or error}")

    async def check_listening(self, base_url: str) -> None:
        """Open a connection and close it. A refusal is proof; no answer in time counts as a failed probe."""
        began_s = self._clock()
        try:
            await accepts(base_url, self._config.connect_timeout_s)
        except TimeoutError:
            self._failed(base_url, began_s, f"no connection within {self._config.connect_timeout_s:g} s")
        except OSError as error:
            self._no_connection(base_url, error)
            if base_url in self._wake:
                self._wake[base_url].set()  # from now on it is asked every retry_interval_s

    def check_stalls(self, base_url: str) -> None:
        """Call off what waits on a worker that does not move any more."""
        now_s = self._clock()
        for worker in self._registry.at(base_url):
            worker.vitals.progressed(worker.heard_s)
            idle = worker.load is not None and worker.load.running + worker.load.waiting == 0
            unanswered = len(worker.unanswered)
            if worker.vitals.look(now_s, unanswered, idle=idle, streaming=worker.in_flight - unanswered):
                self._registry.judge(worker)
                self._registry.call_off(worker)

    async def probe(self, worker: Worker) -> None:
        """Ask its server once and act on the answer. Never raises for what a worker does."""
        began_s = self._clock()
        if worker.vitals.refused and not await self._listens_again(worker.base_url):
            return  # a connection from before may well answer
        try:
            status, _ = await self._ask(worker, self._config.path, self._config.timeout_s)
        except WorkerError as error:
            slow = isinstance(error.__cause__, TimeoutError)  # which proves nothing
            if isinstance(error, WorkerUnreachable) and not slow:
                self._unreachable(worker.base_url, f"connection refused or impossible: {error}")
            else:
                self._failed(worker.base_url, began_s, f"{self._config.path}: {type(error).__name__}")
        else:
            if 200 <= status < 300:
                await self._answered(worker.base_url)
            else:
                self._failed(worker.base_url, began_s, f"{self._config.path} answered {status}")

    def _unreachable(self, base_url: str, why: str) -> None:
        for worker in self._registry.at(base_url):
            worker.was_unreachable = True
            worker.vitals.connection_refused(why)
            self._registry.judge(worker)

    def _failed(self, base_url: str, began_s: float, why: str) -> None:
        for worker in self._registry.at(base_url):
            was_ready = worker.state is WorkerState.READY
            worker.vitals.progressed(worker.heard_s)
            worker.vitals.probe_failed(began_s, why)
            self._registry.judge(worker)
            if was_ready and worker.state is WorkerState.DEGRADED:
                self._registry.call_off(worker)

    async def _answered(self, base_url: str) -> None:
        workers = self._registry.at(base_url)
        if any(_is_unread(worker) for worker in workers):
            await self._read_models(base_url)
            await self._read_facts(base_url)
        now_s = self._clock()
        for worker in self._registry.at(base_url):
            came_back = worker.was_unreachable and worker.state is WorkerState.DEGRADED
            worker.vitals.probe_answered(now_s)
            self._registry.judge(worker)
            if worker.state is WorkerState.READY:
                worker.was_unreachable = False
                if came_back:
                    self._registry.restarted(worker, "nobody listened there for a time")

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
            why = str(error).partition("\n")[0]  # httpx adds a line of advice
            log.warning("%s does not list its models (%s): it gets requests for any", base_url, why)
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
