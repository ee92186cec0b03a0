"""A router in this event loop in front of upstreams whose every byte a test decides, and a check that nothing leaks."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn

from router.app import create_app
from router.config import RouterConfig, load_config
from router.inbound import limited_protocol

DEADLINE_S = 20.0


@dataclass
class Call:
    """One request as an upstream received it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    left: Callable[[], Awaitable[object]]
    """Returns when the other side has hung up."""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)


Script = Callable[[Call, asyncio.StreamWriter], Awaitable[None]]


def answer(body: bytes | dict[str, Any], status: int = 200, headers: str = "") -> Script:
    """A script that answers at once with this body."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def script(call: Call, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(raw)}\r\n{headers}\r\n"
        writer.write(head.encode() + raw)

    return script


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def event(text: str) -> bytes:
    """One chat completion chunk with this text, as SGLang frames it."""
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


@dataclass
class Upstream:
    """An HTTP server; `script` answers its POSTs, `health_status` its probes, `gets` other paths.

    `calls` are the POSTs it received.
    """

    script: Script = field(default_factory=lambda: answer({"id": "x", "choices": []}))
    model: str = "m"
    health_status: int = 200
    gets: dict[str, Script] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    connections: int = 0
    open_now: int = 0
    url: str = ""
    close: Callable[[], Awaitable[None]] = field(default=lambda: asyncio.sleep(0))
    """Stops listening, as a process that has died."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open_now += 1
        try:
            while True:
                call = await self._read(reader)
                if call.method == "POST":
                    self.calls.append(call)
                    await self.script(call, writer)
                else:
                    await self._control(call, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open_now -= 1
            writer.close()

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> Call:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        fields = [line.partition(":") for line in head[1:] if line]
        headers = [(name.lower(), value.strip()) for name, _, value in fields]
        length = int(dict(headers).get("content-length", "0"))
        body = await reader.readexactly(length)
        return Call(method=method, target=target, headers=headers, body=body, left=reader.read)

    async def _control(self, call: Call, writer: asyncio.StreamWriter) -> None:
        if call.path in self.gets:
            await self.gets[call.path](call, writer)
        elif call.path == "/v1/models":
            await answer({"object": "list", "data": [{"id": self.model, "object": "model"}]})(call, writer)
        elif call.path == "/health":
            await answer(b"", self.health_status)(call, writer)
        else:
            await answer({"detail": "Not Found"}, 404)(call, writer)


@asynccontextmanager
async def upstream(
    script: Script | None = None, model: str = "m", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Upstream]:
    """An upstream for the time of a block; https with `tls`."""
    made = Upstream(model=model) if script is None else Upstream(script=script, model=model)
    handlers: set[asyncio.Task[None]] = set()
    transports: set[asyncio.WriteTransport] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(made.serve(reader, writer))
        handlers.add(task)
        task.add_done_callback(handlers.discard)
        transports.add(writer.transport)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)

    async def close() -> None:
        server.close()
        await asyncio.sleep(0)

    made.close = close
    made.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        while accepting := [task for task in asyncio.all_tasks() if "_accept_connection" in repr(task.get_coro())]:
            await asyncio.wait(accepting)  # asyncio loses a connection whose server closes before it is made
        server.close()
        for transport in transports:
            transport.abort()  # one that still has to send would stay open, as would one whose handler never began
        for task in list(handlers):
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        await server.wait_closed()


@dataclass
class Running:
    """A router that listens: its client, its URL and port."""

    client: httpx.AsyncClient
    port: int

    async def workers(self) -> dict[str, dict[str, Any]]:
        return {worker["id"]: worker for worker in (await self.client.get("/workers")).json()["workers"]}

    async def until(self, holds: Callable[[dict[str, dict[str, Any]]], bool]) -> dict[str, dict[str, Any]]:
        """Poll `/workers` until this holds; fails the test after a deadline."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                seen = await self.workers()
                if holds(seen):
                    return seen
                await asyncio.sleep(0.02)


def config(*urls: str, **sections: Any) -> RouterConfig:
    """A configuration for these workers; sections as in the TOML file."""
    overrides: dict[tuple[str, ...], Any] = {("worker",): list(urls), ("policy",): "round_robin"}
    for section, values in sections.items():
        if isinstance(values, dict):
            overrides |= {(section, key): value for key, value in values.items()}
        else:
            overrides[(section,)] = values
    return load_config(None, overrides)


@asynccontextmanager
async def running(
    settings: RouterConfig, *, ready: int | None = None, headers: dict[str, str] | None = None
) -> AsyncIterator[Running]:
    """A router for the time of a block, once `ready` workers (default all) are ready; fails if it leaks a task or a
    lease. Its client sends `headers` with everything."""
    before = asyncio.all_tasks()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings),
            http=limited_protocol(settings.server.max_header_bytes, settings.server.max_connections_per_address),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=2,
        )
    )
    task = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_S, headers=headers, verify=False) as client:
            router = Running(client, port)
            wanted = len(settings.worker) if ready is None else ready
            async with asyncio.timeout(DEADLINE_S):
                while not server.started:
                    await asyncio.sleep(0.01)
            await router.until(lambda all_: sum(each["state"] == "ready" for each in all_.values()) >= wanted)
            yield router
            await router.until(lambda all_: all(each["in_flight"] == 0 for each in all_.values()))
    finally:
        server.should_exit = True
        await task
        listener.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()  # its client reads nothing
    async with asyncio.timeout(DEADLINE_S):
        while left := {each for each in asyncio.all_tasks() - before if "Upstream.serve" not in repr(each)}:
            await asyncio.wait(left, timeout=0.1)
