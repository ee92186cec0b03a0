"""One control call to one server, or to all of them: what a worker answers, or why it did not.

Talks httpx with bounded time; never raises for what a worker does. A server with several DP ranks is called once.
Called by fleet.native. Not here: which routes exist and what their answers mean together (native).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import httpx

from router.errors import NoWorker
from router.fleet.registry import Registry
from router.fleet.worker import Worker, WorkerState
from router.types import WorkerId

UNREACHED_STATUS = 502
FORWARDED = ("authorization", "x-api-key", "content-type", "accept")
"""Request headers that a control call takes along; a worker's own key replaces the client's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlCall:
    """A request for one or all workers. `target` is path and query; `model` limits who may answer."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    timeout_s: float
    model: str | None = None
    worker: WorkerId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerAnswer:
    """What one server said. `reached` is False when nothing came back; `body` then says why."""

    worker: Worker
    status: int
    content_type: str | None
    body: bytes
    reached: bool = True

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class ControlCaller:
    """Asks workers on behalf of an operator or client."""

    def __init__(self, registry: Registry, client: httpx.AsyncClient) -> None:
        self._registry = registry
        self._client = client

    async def ask_one(self, call: ControlCall) -> WorkerAnswer:
        """The answer of one worker of the model: the named one, or the least busy that can be reached.

        Raises UnknownWorker, UnknownModel, and NoWorker when none is there to ask.
        """
        if call.worker is not None:
            return await self._ask(self._registry.named(call.worker)[0], call)
        tried: list[WorkerId] = []
        answer: WorkerAnswer | None = None
        while answer is None or not answer.reached:
            try:
                workers = self._registry.eligible(call.model, tried)
            except NoWorker:
                if answer is None:
                    raise
                return answer
            worker = min(workers, key=lambda each: each.in_flight)
            tried.append(worker.id)
            answer = await self._ask(worker, call)
        return answer

    async def ask_all(self, call: ControlCall) -> list[WorkerAnswer]:
        """The answers of all servers, in the order in which they joined; those still starting are left out.

        Raises UnknownWorker for a named worker that does not exist, and NoWorker when there is none to ask.
        """
        if call.worker is not None:
            return [await self._ask(self._registry.named(call.worker)[0], call)]
        servers = one_per_server(
            [worker for worker in self._registry.all() if worker.state is not WorkerState.STARTING]
        )
        if not servers:
            raise NoWorker("No worker has started yet. See GET /workers.", retry_after_s=1)
        return list(await asyncio.gather(*(self._ask(worker, call) for worker in servers)))

    async def _ask(self, worker: Worker, call: ControlCall) -> WorkerAnswer:
        headers = {name: call.headers[name] for name in FORWARDED if name in call.headers}
        headers.update(worker.extra_headers)
        try:
            response = await self._client.request(
                call.method, worker.base_url + call.target, headers=headers, content=call.body, timeout=call.timeout_s
            )
        except httpx.TimeoutException:
            why = f"Worker {worker.id} did not answer {call.target.partition('?')[0]} within {call.timeout_s:g} s."
        except httpx.HTTPError as error:
            why = f"Worker {worker.id} cannot be reached: {type(error).__name__}."
        else:
            return WorkerAnswer(
                worker=worker,
                status=response.status_code,
                content_type=response.headers.get("content-type"),
                body=response.content,
            )
        return WorkerAnswer(
            worker=worker, status=UNREACHED_STATUS, content_type=None, body=why.encode(), reached=False
        )


def one_per_server(workers: Collection[Worker]) -> list[Worker]:
    """The first worker of each base URL: ranks of one server answer control calls together."""
    first: dict[str, Worker] = {}
    for worker in workers:
        first.setdefault(worker.base_url, worker)
    return list(first.values())
