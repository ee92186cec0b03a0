"""Fakes for the load tests: a chat server on a free port, and an event loop whose clock jumps instead of waiting."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

T = TypeVar("T")
Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self.now_s += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """Sleeping costs nothing: time moves on to the next timer when there is nothing else to do."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


@pytest.fixture
def run_jumping() -> Callable[[Callable[[Callable[[], float]], Coroutine[Any, Any, T]]], T]:
    """Runs `work(clock)` on a JumpingLoop, `clock` being its time."""

    def run(work: Callable[[Callable[[], float]], Coroutine[Any, Any, T]]) -> T:
        loop = JumpingLoop()
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(work(loop.time))

    return run


class StubServer:
    """Answers /v1/chat/completions as `behaviour` says; keeps the requests it got."""

    def __init__(self) -> None:
        self.behaviour: Behaviour = self.stream(self.sse(self.delta(content="a"), self.usage(10, 1, 4)))
        self.seen: list[tuple[dict[str, Any], dict[str, str]]] = []
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        self.server = TestServer(app)

    @property
    def url(self) -> str:
        return str(self.server.make_url("")).rstrip("/")

    @staticmethod
    def sse(*events: object, done: bool = True) -> bytes:
        """Events as a stream's bytes; bytes stay as they are."""
        parts = [b"data: " + (event if isinstance(event, bytes) else msgspec.json.encode(event)) for event in events]
        return b"".join(part + b"\n\n" for part in [*parts, *([b"data: [DONE]"] if done else [])])

    @staticmethod
    def delta(**said: object) -> dict[str, object]:
        return {"choices": [{"index": 0, "delta": said}]}

    @staticmethod
    def usage(prompt: int, completion: int, cached: int | None) -> dict[str, object]:
        details = None if cached is None else {"cached_tokens": cached}
        counts = {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": details}
        return {"choices": [], "usage": counts}

    def stream(self, *pieces: bytes, headers: dict[str, str] | None = None, cut: bool = False) -> Behaviour:
        """A behaviour: an event stream of these pieces, broken off after them when `cut`."""

        async def behave(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"content-type": "text/event-stream", **(headers or {})})
            await response.prepare(request)
            for piece in pieces:
                await response.write(piece)
            if cut and request.transport is not None:
                request.transport.close()
            return response

        return behave

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((await request.json(), dict(request.headers)))
        return await self.behaviour(request)

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "stub-model"}]})


@pytest.fixture
async def stub() -> AsyncIterator[StubServer]:
    server = StubServer()
    await server.server.start_server()
    yield server
    await server.server.close()
