"""A child's end of the line to its parent: who is there, who leads, events to all, questions and their answers.

Talks to one Unix socket. Called by replica and front. Not here: what events and questions mean (replica), the frames'
way between children (relay).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec

from router.errors import ProcessGone
from router.processes.frame import ALL, EVENTS, GAP, MESSAGE, PARENT, PEERS, READY, Frames, pack

log = logging.getLogger(__name__)

UNSENT_BYTES = 32 * 2**20
"""What may wait for a parent that is too slow; events past it are dropped."""
Handler = Callable[[int, Any], Awaitable[Any]]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Bus(asyncio.Protocol):
    """`number` is this child's. `peers` are the other children that serve, `leader` the one that leads.

    Whoever uses it sets `heard` (events of another child), `changed` (peers or leader), `missed` (events were lost)
    and `lost` (the parent is gone), and `answers` to questions by name.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.leader = PARENT
        self.alive: frozenset[int] = frozenset()
        self.peers: frozenset[int] = frozenset()
        self.restarts = 0
        self.answers: dict[str, Handler] = {}
        self.heard: Callable[[int, bytes], None] = lambda source, payload: None
        self.changed: Callable[[], None] = lambda: None
        self.missed: Callable[[], None] = lambda: None
        self.lost: Callable[[], None] = lambda: None
        self.spawn: Callable[[Any], object] = asyncio.ensure_future
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._asked: dict[int, tuple[int, asyncio.Future[Any]]] = {}
        self._count = 0
        self._known = asyncio.Event()

    async def open(self, sock: socket.socket) -> None:
        """Connect, and wait until the parent has said who is there."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=sock)
        await self._known.wait()

    def close(self) -> None:
        self.lost = lambda: None
        if self._transport is not None:
            self._transport.close()

    @property
    def leads(self) -> bool:
        return self.leader == self.number

    # -- sending ------------------------------------------------------------------------------------------------

    def ready(self) -> None:
        """Tell the parent that this child serves."""
        self._send(PARENT, READY, b"")

    def tell(self, payload: bytes) -> bool:
        """Events for everybody; False if they were dropped because the parent is too slow."""
        transport = self._transport
        if transport is None or transport.get_write_buffer_size() > UNSENT_BYTES:
            return False
        self._send(ALL, EVENTS, payload)
        return True

    def command(self, name: str, body: Any = None, target: int = ALL) -> None:
        """Something to be done by one or all, in the order of the events around it. No answer comes."""
        self._send(target, MESSAGE, _encode((0, name, body)))

    async def ask(self, target: int, name: str, body: Any = None, *, timeout_s: float) -> Any:
        """The answer of another child. Raises ProcessGone when it ends first or does not answer in time."""
        self._count += 1
        number = self._count
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[number] = (target, answer)
        try:
            self._send(target, MESSAGE, _encode((number, name, body)))
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise ProcessGone(f"Process {target} did not answer within {timeout_s:g} s.", retry_after_s=1) from None
        finally:
            del self._asked[number]

    def _send(self, target: int, kind: int, payload: bytes) -> None:
        if self._transport is not None:
            self._transport.write(pack(self.number, target, kind, payload))

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        for source, _, kind, payload in self._frames.feed(data):
            self._take(source, kind, payload)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.lost()

    def _take(self, source: int, kind: int, payload: bytes) -> None:
        if kind == EVENTS:
            self.heard(source, payload)
        elif kind == MESSAGE:
            self._message(source, *_decode(payload))
        elif kind == PEERS:
            self._take_peers(*_decode(payload))
        elif kind == GAP:
            self.missed()

    def _take_peers(self, leader: int, alive: list[int], ready: list[int], restarts: int) -> None:
        self.leader, self.restarts = leader, restarts
        self.alive = frozenset(alive) - {self.number}
        self.peers = frozenset(ready) - {self.number}
        for target, answer in list(self._asked.values()):
            if target not in self.alive and not answer.done():
                answer.set_exception(ProcessGone(f"Process {target} ended.", retry_after_s=1))
        self._known.set()
        self.changed()

    def _message(self, source: int, number: int, name: str, body: Any) -> None:
        """Numbers below zero are answers to our questions, 0 is for what wants none."""
        if number >= 0:
            self.spawn(self._answer(source, number, name, body))
            return
        asked = self._asked.get(-number)
        if asked is not None and not asked[1].done():
            if name == "failed":
                asked[1].set_exception(ProcessGone(f"Process {source}: {body}", retry_after_s=1))
            else:
                asked[1].set_result(body)

    async def _answer(self, source: int, number: int, name: str, body: Any) -> None:
        handler = self.answers.get(name)
        try:
            found = None if handler is None else await handler(source, body)
            reply = _encode((-number, "ok", found))
        except Exception as error:  # top of a task: whoever asked hears of it
            log.exception("process %d: %r of process %d failed", self.number, name, source)
            reply = _encode((-number, "failed", type(error).__name__))
        if number:
            self._send(source, MESSAGE, reply)
