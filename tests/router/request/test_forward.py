"""What is asked of a worker by GET over the data path's connections: its answer, or an error of ours in time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
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


async def test_a_request_arrives_before_its_answer_is_awaited_where_a_connection_is_free() -> None:
    arrived = asyncio.Event()

    async def arrive(call: Call, writer: asyncio.StreamWriter) -> None:
        arrived.set()

    async with upstream(arrive) as server, forwarder() as forward, asyncio.timeout(20):
        worker = at(server.url)
        first = forward.send(worker, b"/v1/chat/completions", b"", b"{}")
        server.gets["/x"] = answer(b"[1]")
        await forward.get(worker, "/x", 20.0)
        second = forward.send(worker, b"/v1/chat/completions", b"", b"{}")
        await arrived.wait()

        assert first.connection is None
        assert second.connection is not None
        second.connection.end()


async def test_a_request_whose_answer_nobody_waits_for_is_broken_off() -> None:
    async with upstream() as server, forwarder() as forward, asyncio.timeout(20):
        worker = at(server.url)
        server.gets["/x"] = answer(b"[1]")
        await forward.get(worker, "/x", 20.0)
        forward.send(worker, b"/v1/chat/completions", b"", b"{}").drop()
        await forward.get(worker, "/x", 20.0)

    assert server.connections == 2


async def test_a_worker_that_does_not_answer_a_get_in_time_is_hung_up_on() -> None:
    hung_up = asyncio.Event()

    async def silence(call: Call, writer: asyncio.StreamWriter) -> None:
        await call.left()
        hung_up.set()

    async with upstream() as server, forwarder() as forward:
        server.gets["/v1/loads"] = silence
        with pytest.raises(WorkerTimeout, match=r"within 0\.5 s"):
            await forward.get(at(server.url), "/v1/loads", 0.5)
        async with asyncio.timeout(20.0):
            await hung_up.wait()


async def test_a_get_of_a_worker_that_is_not_there_says_so() -> None:
    async with upstream() as server:
        url = server.url
    async with forwarder() as forward:
        with pytest.raises(WorkerUnreachable):
            await forward.get(at(url), "/v1/loads", 20.0)


async def test_a_connection_that_its_worker_closed_while_unused_is_not_used_again() -> None:
    async def once(call: Call, writer: asyncio.StreamWriter) -> None:
        await answer(b"[1]")(call, writer)
        writer.close()

    async with upstream() as server, forwarder() as forward, asyncio.timeout(20):
        server.gets["/x"] = once
        worker = at(server.url)
        await forward.get(worker, "/x", 20.0)
        while forward._open:
            await asyncio.sleep(0.01)
        kept = len(forward._place(worker).idle)
        again = await forward.get(worker, "/x", 20.0)

    assert (kept, again) == (1, (200, b"[1]"))
    assert server.connections == 2


async def test_a_connection_that_nobody_used_for_long_is_closed() -> None:
    made = Forwarder(ForwardConfig(keepalive_s=0.01))
    await made.start()
    async with upstream() as server, asyncio.timeout(20):
        server.gets["/x"] = answer(b"[1]")
        await made.get(at(server.url), "/x", 20.0)
        while made._open or made._place(at(server.url)).idle:
            await asyncio.sleep(0.01)
        await made.close()


@pytest.mark.parametrize("ends", ["well", "badly"])
async def test_an_answer_that_comes_as_its_asker_gives_up_is_nobodys(ends: str) -> None:
    asked = asyncio.Event()

    async def hang(call: Call, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await call.left()

    async with upstream() as server, forwarder() as forward, asyncio.timeout(20):
        server.gets["/x"] = hang
        asking = asyncio.ensure_future(forward.get(at(server.url), "/x", 20.0))
        await asked.wait()
        [connection] = forward._open
        asking.cancel()
        if ends == "well":
            connection.data_received(b"HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n")
        else:
            connection.fail(WorkerTimeout("too late"))
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_a_worker_that_lets_nobody_in_is_given_up_in_time() -> None:
    made = Forwarder(ForwardConfig(connect_timeout_s=0.05))
    await made.start()
    with socket.socket() as full, contextlib.ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # Linux lets in one more than it was told, and then nobody
            other = waiting.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        with pytest.raises(WorkerUnreachable, match=r"within 0\.05 s"):
            await made.get(at(f"http://127.0.0.1:{full.getsockname()[1]}"), "/x", 20.0)
    await made.close()


async def test_a_forwarder_that_was_not_started_says_so_and_can_be_closed() -> None:
    made = Forwarder(ForwardConfig())
    with pytest.raises(RuntimeError, match="not awaited"):
        await made.answered(made.send(at("http://127.0.0.1:1"), b"/", b"", b""))
    await made.close()
