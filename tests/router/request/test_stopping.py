"""How connections end: with a router that stops, and on a client that sends more than it may."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from typing import Any

import httpx
import pytest

from ports import free_port
from router.request import endpoints
from router_fakes import STREAM_HEAD, Call, chunk, config, event, running, upstream

CHAT = "/v1/chat/completions"
DEADLINE_S = 30.0


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_not_done_when_the_router_stops_hears_of_it(stream: bool, chat: dict[str, Any]) -> None:
    reached = asyncio.Event()

    async def hang(call: Call, writer: asyncio.StreamWriter) -> None:
        if stream:
            writer.write(STREAM_HEAD + chunk(event("a")))
            await writer.drain()
        reached.set()
        await call.left()

    port = free_port()
    async with upstream(hang) as worker, asyncio.timeout(DEADLINE_S):
        argv = ["serve", "--port", str(port), "--worker", worker.url, "--shutdown-grace-s", "1"]
        process = subprocess.Popen([sys.executable, "-m", "router", *argv], stdin=subprocess.DEVNULL)
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_S) as client:
                while True:
                    try:
                        if (await client.get("/ready")).status_code == 200:
                            break
                    except httpx.TransportError:
                        pass
                    await asyncio.sleep(0.05)
                waiting = asyncio.ensure_future(client.post(CHAT, json={**chat, "stream": stream}))
                await reached.wait()
                process.send_signal(signal.SIGTERM)
                reply = await waiting
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, 20)

    if stream:
        assert reply.status_code == 200
        assert json.loads(reply.text.strip().rpartition("data: ")[2])["error"]["code"] == "router_stopping"
    else:
        assert (reply.status_code, reply.headers["connection"]) == (503, "close")
        assert reply.json()["error"]["code"] == "router_stopping"


async def test_a_client_that_sends_without_end_gets_its_answer_and_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "DRAIN_BYTES", 200_000)
    async with running(config(server={"max_body_bytes": 1024}), ready=0) as router, asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        reading = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
        sent = 0
        try:
            while sent < 100_000_000:
                writer.write(chunk(b" " * 10_000))
                await writer.drain()
                sent += 10_000
        except ConnectionError:
            pass
        head = await reading
        writer.close()

    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in head.lower()
    assert sent < 100_000_000


async def test_a_client_that_waits_for_permission_is_refused_without_being_asked_for_the_body() -> None:
    async with running(config(server={"max_body_bytes": 1024}), ready=0) as router, asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\nexpect: 100-continue\r\n\r\n"
        writer.write(head.encode())
        received = await reader.read()
        writer.close()

    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"100" not in received.partition(b"\r\n")[0]
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["code"] == "body_too_large"


async def test_errors_of_the_control_routes_have_the_same_shape() -> None:
    async with running(config(server={"max_body_bytes": 1024}), ready=0) as router:
        replies = [
            await router.client.post("/workers", content=b"x" * 100_000),
            await router.client.post("/workers", content=b"[1]"),
            await router.client.post("/tokenize", content=b"x" * 2000),
            await router.client.post("/flush_cache?timeout=soon"),
        ]

    assert [reply.status_code for reply in replies] == [413, 400, 413, 400]
    assert all(set(reply.json()["error"]) == {"message", "type", "param", "code", "source"} for reply in replies)
