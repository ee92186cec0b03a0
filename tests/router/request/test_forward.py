"""What is asked of a worker by GET over the data path's connections: its answer, or an error of ours in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from router.errors import WorkerTimeout, WorkerUnreachable
from router.fleet.worker import Worker
from router.request.forward import ForwardConfig, Forwarder
from router_fakes import Call, answer, upstream


@asynccontextmanager
async def forwarder() -> AsyncIterator[Forwarder]:
    made = Forwarder(ForwardConfig())
    await made.start()
    try:
        yield made
    finally:
        await made.close()


def at(url: str) -> Worker:
    worker = Worker("w1", url, now_s=0.0)
    worker.extra_headers = (("Authorization", "Bearer k"),)
    return worker


async def test_a_get_brings_status_and_body_with_the_workers_own_headers_and_keeps_the_connection() -> None:
    seen: list[Call] = []

    async def loads(call: Call, writer: asyncio.StreamWriter) -> None:
        seen.append(call)
        await answer(b"[1]", 202)(call, writer)

    async with upstream() as server, forwarder() as forward:
        server.gets["/v1/loads"] = loads
        found = [await forward.get(at(server.url), "/v1/loads?x=1", 20.0) for _ in range(3)]

    assert found == [(202, b"[1]")] * 3
    assert server.connections == 1
    assert [(call.target, call.header("authorization"), call.body) for call in seen] == [
        ("/v1/loads?x=1", "Bearer k", b"")
    ] * 3


async def test_a_worker_that_does_not_answer_a_get_in_time_is_hung_up_on() -> None:
    hung_up = asyncio.Event()

    async def silence(call: Call, writer: asyncio.StreamWriter) -> None:
        await call.left()
        hung_up.set()

    async with upstream() as server, forwarder() as forward:
        server.gets["/v1/loads"] = silence
        with pytest.raises(WorkerTimeout, match=r"within 0\.05 s"):
            await forward.get(at(server.url), "/v1/loads", 0.05)
        async with asyncio.timeout(20.0):
            await hung_up.wait()


async def test_a_get_of_a_worker_that_is_not_there_says_so() -> None:
    async with upstream() as server:
        url = server.url
    async with forwarder() as forward:
        with pytest.raises(WorkerUnreachable):
            await forward.get(at(url), "/v1/loads", 20.0)
