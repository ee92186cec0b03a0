"""A running simulated worker for a test, and ways to talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from workers.simulated.faults import FaultSchedule, parse_faults
from workers.simulated.options import Options
from workers.simulated.server import Server, running

SPEED = 200.0  # a decode step of 5 ms takes 25 us: tests need the order of things, not their duration


class Worker:
    """One running worker with a client."""

    def __init__(self, server: Server, client: httpx.AsyncClient) -> None:
        self.server = server
        self.client = client
        self.port = server.port

    async def get(self, path: str, **given: Any) -> httpx.Response:
        return await self.client.get(path, **given)

    async def post(self, path: str, body: object, **given: Any) -> httpx.Response:
        return await self.client.post(path, json=body, **given)

    async def chat(self, content: str | list[dict[str, Any]], **fields: Any) -> httpx.Response:
        messages = [{"role": "user", "content": content}] if isinstance(content, str) else content
        return await self.post("/v1/chat/completions", {"model": "m", "messages": messages, **fields})

    async def events(self, path: str, body: dict[str, Any], **given: Any) -> list[Any]:
        """The data of a stream's events, decoded; "[DONE]" stays text."""
        response = await self.post(path, body, **given)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        data = [line[6:] for line in response.text.split("\n") if line.startswith("data: ")]
        return [json.loads(item) if item != "[DONE]" else item for item in data]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def loads(self) -> dict[str, Any]:
        answer = (await self.get("/v1/loads")).json()
        loads: dict[str, Any] = answer["loads"][0]
        return loads

    async def until(self, condition: Callable[[], Awaitable[bool]], within_s: float = 30.0) -> None:
        """Waits until the condition holds; fails the test when it never does."""
        async with asyncio.timeout(within_s):
            while not await condition():
                await asyncio.sleep(0.005)


StartWorker = Callable[..., contextlib.AbstractAsyncContextManager[Worker]]


@pytest.fixture
def start_worker() -> StartWorker:
    """Starts a worker: `async with start_worker(page_size=16) as worker`. `faults` are tables as in a fault file."""

    @contextlib.asynccontextmanager
    async def start(faults: list[dict[str, Any]] | None = None, **given: Any) -> AsyncIterator[Worker]:
        options = Options(port=0, **{"speed": SPEED, **given}).validated()
        schedule = parse_faults(faults or [])
        assert isinstance(schedule, FaultSchedule)
        async with (
            running(options, schedule) as server,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=60.0, verify=False) as client,
        ):
            yield Worker(server, client)

    return start


@pytest.fixture
async def worker(start_worker: StartWorker) -> AsyncIterator[Worker]:
    """A worker with default options, but fast."""
    async with start_worker() as running_worker:
        yield running_worker
