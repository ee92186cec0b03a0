"""Measures how fast one simulated worker answers: `python -m workers.simulated.throughput`. Prints; asserts nothing.

Starts a worker in a process of its own, drives it over loopback from this one, and reports requests and events per
second with the worker's own CPU time, which is the figure that does not depend on this client's speed.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

import httptools
import uvloop

from workers.simulated.options import Options
from workers.simulated.server import running

CONNECTIONS = 64
SPEED = 1000.0  # fast enough that the engine never waits: what remains is the cost of serving


def main() -> None:
    """Runs both measurements."""
    cases: Sequence[tuple[str, bytes, int]] = (
        ("whole answers, 4 kB prompt, 16 tokens", _chat(4_000, 16, stream=False), 3_000),
        ("whole answers, 40 kB prompt, 16 tokens", _chat(40_000, 16, stream=False), 1_500),
        ("streams, 1 kB prompt, 200 tokens", _chat(1_000, 200, stream=True), 600),
    )
    for name, request, count in cases:
        _measure(name, request, count)


def _measure(name: str, request: bytes, count: int) -> None:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there,))
    process.start()
    port = here.recv()
    started_s = time.perf_counter()
    events = uvloop.run(_drive(port, request, count))
    wall_s = time.perf_counter() - started_s
    here.send("stop")
    cpu_s = here.recv()
    process.join()
    line = f"{name}: {count / wall_s:,.0f} requests/s, {cpu_s / count * 1e6:,.0f} us CPU each"
    if events > count:
        line += f"; {events / wall_s:,.0f} events/s, {cpu_s / events * 1e6:,.1f} us CPU each"
    sys.stdout.write(f"{line} ({CONNECTIONS} connections)\n")


def _serve(pipe: Connection) -> None:
    async def until_told() -> None:
        async with running(Options(port=0, speed=SPEED)) as server:
            pipe.send(server.port)
            before = resource.getrusage(resource.RUSAGE_SELF)
            await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
            after = resource.getrusage(resource.RUSAGE_SELF)
            pipe.send(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    uvloop.run(until_told())


def _chat(prompt_bytes: int, tokens: int, *, stream: bool) -> bytes:
    text = "the quick brown fox jumps over the lazy dog " * (prompt_bytes // 44 + 1)
    body = b'{"model":"m","messages":[{"role":"user","content":"%s"}],"max_tokens":%d,"stream":%s}' % (
        text[:prompt_bytes].encode(),
        tokens,
        b"true" if stream else b"false",
    )
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    )
    return head % len(body) + body


class _Client(asyncio.Protocol):
    """Sends the same request again and again on one connection and counts the events of the answers."""

    def __init__(self, request: bytes, remaining: list[int]) -> None:
        self._request = request
        self._remaining = remaining
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self.events = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._next()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.events += body.count(b"data: ")

    def on_message_complete(self) -> None:
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the worker closed the connection"))

    def _next(self) -> None:
        if self._transport is None:
            return
        if self._remaining[0] <= 0:
            self.done.set_result(None)
            self._transport.close()
            return
        self._remaining[0] -= 1
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(self._request)


async def _drive(port: int, request: bytes, count: int) -> int:
    remaining = [count]
    clients: list[_Client] = []
    for _ in range(CONNECTIONS):
        _, client = await asyncio.get_running_loop().create_connection(
            lambda: _Client(request, remaining), "127.0.0.1", port
        )
        clients.append(client)
    await asyncio.gather(*(client.done for client in clients))
    return sum(client.events for client in clients)


if __name__ == "__main__":
    main()
