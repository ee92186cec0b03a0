"""One model call on a client's connection: its body as it comes, and the answer as it goes. Implements Reply.

To uvicorn's protocol it looks like one of its own request cycles (response_complete, disconnected, keep_alive,
message_event), so that both kinds take their turns on one connection. Called by inbound; writes what dispatch says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from router.errors import RouterError
from router.request import endpoints
from router.request.disconnect import LEFT
from router.request.endpoints import ModelCalls
from router.request.head import Head
from router.request.reply import AnswerHead, RawHeaders, send_error, spelled
from router.request.strand import Gate, Strand

JOIN_BYTES = 16 * 2**10
"""Pieces up to this size are copied behind their head, which is cheaper than a second buffer."""
STRANGER_BYTES = 64 * 2**10
"""A larger body, or one of unknown length, is read only from whom dispatch would serve; smaller ones cost nothing."""


KEPT = b"\r\n"
CLOSED = b"connection: close\r\n\r\n"
"""How a head ends when the connection is kept, and when it is not."""


class ModelCall:
    """`length_bytes` is the body's, if its head says it; `ended` is called once, when the next request may be answered.
    """

    more_body = True
    refused: RouterError | None = None
    drained_bytes = 0
    full = False
    disconnected = False
    response_complete = False
    started = False
    _size = 0
    _answer: AnswerHead | None = None
    _head = b""
    _chunked = False
    _strand: Strand | None = None
    _gate: Gate | None = None

    def __init__(
        self,
        calls: ModelCalls,
        head: Head,
        length_bytes: int | None,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        tasks: set[object],
        ended: Callable[[ModelCall], None],
    ) -> None:
        self.at_s = calls.clock()
        self._calls = calls
        self.head = head
        self._transport = transport
        self._loop = loop
        self._tasks = tasks
        self._ended = ended
        self._body: list[bytes | memoryview] = []
        self.keep_alive = head.keep_alive
        if length_bytes is not None and length_bytes > calls.max_body_bytes:
            self.refused = calls.too_large(length_bytes)
        elif length_bytes is None or length_bytes > STRANGER_BYTES:
            self.refused = calls.refusal_of_stranger(head)

    # -- the request --------------------------------------------------------------------------------------------

    @property
    def message_event(self) -> ModelCall:
        """uvicorn sets its cycles' event when the client has gone."""
        return self

    def set(self) -> None:
        """See message_event."""

    @property
    def running(self) -> bool:
        return self._strand is not None

    def take_turn(self) -> None:
        """All earlier requests of the connection are answered: this one may be, as soon as it is there."""
        if self.refused is not None:
            self._refuse()
        elif not self.more_body:
            self._run(self._taken())
        elif self.head.expects and not self._size:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def take_body(self, piece: bytes | memoryview, *, its_turn: bool) -> None:
        """A piece of the body came. It is kept as it is until all are there, and is not to change."""
        if self.refused is not None:
            self.drained_bytes += len(piece)
            if self.drained_bytes > endpoints.DRAIN_BYTES:
                self._transport.close()
            return
        self._body.append(piece)
        self._size += len(piece)
        if self._size > self._calls.max_body_bytes:
            self._body.clear()
            self.refused = self._calls.too_large(None)
            if its_turn:
                self._refuse()

    def take_whole(self, body: bytes) -> None:
        """It is this request's turn, and its whole body is here at once."""
        self.more_body = False
        if self.refused is None:
            self._run(body)
        else:
            self._refuse()

    def end_body(self, *, its_turn: bool) -> None:
        """The body is whole."""
        self.more_body = False
        if self.response_complete:
            self._transport.close()  # it was refused, and has been drained
        elif its_turn and self.refused is None:
            self._run(self._taken())

    def client_left(self) -> None:
        """The connection is gone."""
        self.disconnected = True
        self.full = False
        if self._strand is not None:
            self._strand.cancel(LEFT)

    def _taken(self) -> bytes:
        first = self._body[0] if len(self._body) == 1 else None
        body = first if isinstance(first, bytes) else b"".join(self._body)
        self._body.clear()
        return body

    def _run(self, body: bytes) -> None:
        raw = self._calls.raw(self.head, body, self.at_s)
        self._strand = strand = Strand(self._loop, self._over)
        self._tasks.add(strand)
        strand.start(self._calls.dispatch(raw, self, strand))

    def _over(self, strand: Strand) -> None:
        self._tasks.discard(strand)
        self._strand = None
        if not self.response_complete:
            self.abort()
        self._ended(self)

    def _refuse(self) -> None:
        """Answer with the error, and take for a while what the client still sends, so that it gets to read it."""
        assert self.refused is not None
        self.keep_alive = False
        send_error(self, self.refused, self.head.endpoint, self.head.given_id or self._calls.new_id())
        if self.more_body and not self.head.expects and not self._transport.is_closing():
            self._loop.call_later(endpoints.DRAIN_S, self._transport.close)
        else:
            self._transport.close()

    # -- Reply --------------------------------------------------------------------------------------------------

    @property
    def event_stream(self) -> bool:
        return self._answer is not None and self._answer.event_stream

    def start(self, head: AnswerHead, own: RawHeaders, length_bytes: int | None) -> None:
        self.started = True
        self._answer = head
        length = b""
        if length_bytes is not None:
            length = b"content-length: %d\r\n" % length_bytes
        elif self.head.version == "1.1":
            self._chunked = True
            length = b"transfer-encoding: chunked\r\n"
        else:
            self.keep_alive = False
        self._head = b"%b%b%b%b" % (head.lines, spelled(own), length, KEPT if self.keep_alive else CLOSED)

    def answer(self, head: AnswerHead, own: RawHeaders, body: bytes, *, close: bool = False) -> None:
        if close:
            self.keep_alive = False
        keep_alive, size = self.keep_alive, len(body)
        self.started = self.response_complete = True
        if self.disconnected:
            return
        lines = b"%b%bcontent-length: %d\r\n%b" % (head.lines, spelled(own), size, KEPT if keep_alive else CLOSED)
        if size <= JOIN_BYTES:
            self._transport.write(lines + body)
        else:
            write_all(self._transport, (lines, body))
        if not keep_alive and self.refused is None:
            self._transport.close()

    def write(self, data: bytes, chunk: bytes | None = None) -> bool:
        if self.disconnected or not data:
            return self.full
        head, transport = self._head, self._transport
        if not head and self._chunked and len(data) <= JOIN_BYTES:  # an event of a stream
            transport.write(chunk or b"%x\r\n%b\r\n" % (len(data), data))
            return self.full
        self._head = b""
        pieces = (b"%b%x\r\n" % (head, len(data)), data, b"\r\n") if self._chunked else (head, data)
        if len(data) <= JOIN_BYTES:
            transport.write(b"".join(pieces))
        else:
            write_all(transport, pieces)
        return self.full

    async def drained(self) -> None:
        gate = self._gate = Gate()
        while self.full:
            await gate
        self._gate = None

    def client_reads(self) -> None:
        """The client has taken most of what was written."""
        self.full = False
        if self._gate is not None:
            self._gate.open()

    def finish(self) -> None:
        if self.disconnected:
            self.response_complete = True
            return
        end = self._head + (b"0\r\n\r\n" if self._chunked else b"")
        if end:
            self._transport.write(end)
            self._head = b""
        self.response_complete = True
        if not self.keep_alive and self.refused is None:
            self._transport.close()

    def abort(self) -> None:
        self.response_complete = True
        self._transport.abort()


def write_all(transport: asyncio.Transport, pieces: Sequence[bytes]) -> None:
    """Large pieces one by one: after writelines some asyncio (3.12.0 to 3.13.1, CPython gh-127655) does not tell that
    the client reads too slowly, and the router would keep all that it does not read.
    """
    for piece in pieces:
        if piece:
            transport.write(piece)
