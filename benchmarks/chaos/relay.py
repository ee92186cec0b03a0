"""A TCP relay in front of one worker, which can stop forwarding without closing anything: a partition of the network.

While held it still accepts connections, as a proxy's kernel does, and nothing gets through either way, not even that a
side has hung up. Released, everything arrives late. A worker that is dead is told by hanging up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Relay:
    """Listens on a port of its own from `start` on; `close` ends it and all connections through it."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._sides: set[_Side] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._held = False
        self.port = 0

    async def start(self, port: int = 0) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accepted, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    def hold(self) -> None:
        """From now on nothing gets through."""
        self._held = True
        for side in self._sides:
            side.pause()

    def release(self) -> None:
        """Everything gets through again, what was held first."""
        self._held = False
        for side in list(self._sides):
            side.resume()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        for side in list(self._sides):
            side.abort()

    def _accepted(self) -> _Side:
        return _Side(self._sides, self._connect)

    def _connect(self, client: _Side) -> None:
        task = asyncio.get_running_loop().create_task(self._link(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _link(self, client: _Side) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, worker = await loop.create_connection(lambda: _Side(self._sides), "127.0.0.1", self._target_port)
        except OSError:
            client.abort()
            return
        client.other, worker.other = worker, client
        if not self._held:
            client.resume()
            worker.resume()


class _Side(asyncio.Protocol):
    """One end of a relayed connection. It begins paused; `accepted` is told of it when it is the client's."""

    def __init__(self, sides: set[_Side], accepted: Callable[[_Side], None] | None = None) -> None:
        self._sides = sides
        self._accepted = accepted
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self.other: _Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._sides.add(self)
        self.pause()
        if self._accepted is not None:
            self._accepted(self)

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._sides.discard(self)
        if self.other is not None:
            if exc is None:
                self.other.close()
            else:
                self.other.abort()

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def pause(self) -> None:
        if self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and self._paused and self.other is not None:
            self._paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
