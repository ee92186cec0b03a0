"""One connection to a worker, and the answer that is being read from it.

It parses with httptools, which refuses what is not HTTP, keeps at most BUFFER_BYTES of a stream that the client takes
too slowly, and is used again when an answer was read to its end. Called by request.forward (begin, answered),
request.relay (head, piece, read) and request.dispatch (end, fail). Not here: which worker, when to retry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import httptools

from router.errors import WorkerError, WorkerHungUp
from router.fleet.worker import Worker
from router.request.head import HOP_BY_HOP, connection_options
from router.request.repeat import Repeat
from router.request.reply import AnswerHead, RawHeaders
from router.request.strand import Gate

_NOT_HANDED_ON = HOP_BY_HOP | {b"content-length", b"x-request-id"}
NO_HEAD = AnswerHead(502, [])
BUFFER_BYTES = 512 * 2**10
"""So much of an answer waits for a slow client, beside what the transport reads at a time (256 KiB)."""
MAX_HEADER_BYTES = 256 * 2**10
JOIN_BYTES = 16 * 2**10
"""Bodies up to this size are copied behind their head, which is cheaper than a second buffer."""
LENGTH_DIGITS: Final = 8
"""A chunk whose length is told in more digits is left to the parser."""
ZERO: Final = 48
NINE: Final = 57
SMALL_A: Final = 97
SMALL_F: Final = 102
CR: Final = 13
LF: Final = 10
"""The digits of a chunk's length, as servers write them, and what follows them."""
Sink = Callable[[bytes, bytes | None], bool]
"""Takes bytes and says whether it has enough of them for now. Where they came as one chunk, that chunk comes with them:
who hands them on in chunks need not write another one."""


def data_of_chunk(piece: bytes) -> int:
    """Where the data begins if `piece`, which ends with CR LF, is one whole chunk and nothing else; otherwise 0."""
    size = 0
    for at in range(min(LENGTH_DIGITS + 1, len(piece))):
        byte = piece[at]
        if ZERO <= byte <= NINE:
            size = 16 * size + byte - ZERO
        elif SMALL_A <= byte <= SMALL_F:
            size = 16 * size + byte - SMALL_A + 10
        else:
            whole = at > 0 and size == len(piece) - at - 4 and byte == CR and piece[at + 1] == LF
            return at + 2 if whole else 0
    return 0


class WorkerConnection(asyncio.Protocol):
    """`lost` is called once, when the connection has ended."""

    def __init__(self, lost: Callable[[WorkerConnection], None]) -> None:
        self._lost = lost
        self._gate = Gate()
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # called by the parser: no frame of Python for a chunk
        self._parser = httptools.HttpResponseParser(self)
        self._size = 0
        self._sink: Sink | None = None
        self._sink_full = False
        self._sink_error: Exception | None = None
        self._paused = False
        self._whole = False
        self._error: WorkerError | None = None
        self._head_parsed = False
        self._until_close = False
        self._keep_alive = False
        self._head_bytes = 0
        self._between_chunks = False
        self._resting = True
        self._repeat: Repeat | None = None
        self.used = False
        self.busy = False
        self.closed = False
        self.complete = False
        self.began = False
        """Whether anything of the body has come."""
        self.heard = False
        """Whether anything came since somebody last looked, who then sets it to False."""
        self.quiet_since_s = 0.0
        self.worker: Worker | None = None
        self._headers: RawHeaders = []
        self.status = 0
        self.head = NO_HEAD
        """What to hand on: without headers that concern this connection, a content-length, and the request's id."""
        self.retry_after: str | None = None
        """What the worker's Retry-After header says."""
        self.length_bytes: int | None = None
        self.streams = False

    # -- one exchange -------------------------------------------------------------------------------------------

    def begin(self, worker: Worker, head: bytes, body: bytes, now_s: float) -> None:
        """Send a request."""
        self.worker = worker
        self.complete = self.began = self.heard = self._whole = self._head_parsed = self._sink_full = False
        self._between_chunks = False
        self._error = self._sink_error = None
        self._head_bytes = 0
        self.quiet_since_s = now_s
        self.busy = True
        transport = self._transport
        assert transport is not None
        if len(body) <= JOIN_BYTES:
            transport.write(head + body)
        else:
            transport.writelines((head, body))

    async def answered(self) -> bool:
        """Wait for status and headers. False: this was a used connection, and the worker had closed it already.

        Raises WorkerHungUp or WorkerTimeout.
        """
        while not self._head_parsed:
            if self._error is not None:
                if self.used and self.closed and not self._head_bytes and type(self._error) is WorkerHungUp:
                    return False
                raise self._error
            await self._gate
        return True

    async def piece(self) -> bytes:
        """What has come of the body since the last call, and b"" at its end. Raises WorkerHungUp or WorkerTimeout."""
        while True:
            pieces = self._pieces
            if pieces:
                data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                pieces.clear()
                self._size = 0
                if self._paused:
                    self._flow(paused=False)
                return data
            if self.complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._gate

    async def pour(self, sink: Sink, drained: Callable[[], Awaitable[None]]) -> None:
        """Every piece of the body goes to `sink` as it comes, in the stack of whoever received it, until the end.

        While `sink` says True nothing more is read from the worker: `drained` is awaited first. Raises WorkerHungUp or
        WorkerTimeout, and what `sink` raises.
        """
        self._sink = sink
        try:
            while True:
                if self._sink_error is not None:
                    raise self._sink_error
                if self._sink_full or self._hand_on(sink):
                    self._sink_full = False
                    if not self._paused:
                        self._flow(paused=True)
                    await drained()
                    self._flow(paused=False)
                elif self.complete:
                    return
                elif self._error is not None:
                    raise self._error
                else:
                    await self._gate
        finally:
            self._sink = None

    def _hand_on(self, sink: Sink) -> bool:
        """Whether the sink is full."""
        pieces = self._pieces
        if not pieces:
            return False
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._size = 0
        return sink(data, None)

    async def read(self) -> bytes:
        """The whole body. Raises WorkerHungUp or WorkerTimeout."""
        self._whole = True
        if self._paused:
            self._flow(paused=False)
        while not self.complete:
            if self._error is not None:
                raise self._error
            await self._gate
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._size = 0
        return body

    def fail(self, error: WorkerError) -> None:
        """Break the exchange off: whoever waits for it gets this error."""
        if self._error is None:
            self._error = error
        if self._transport is not None:
            self._transport.abort()
        self.closed = True
        self._gate.open()

    def end(self) -> None:
        """The exchange is over. What was not read to its end is broken off, so that the worker stops generating."""
        self.busy = False
        self._pieces.clear()
        self._size = 0
        transport = self._transport
        if transport is None or self.closed:
            return
        if self.complete and self._keep_alive and not self._error and not transport.get_write_buffer_size():
            self.used = True
            if self._paused:
                self._flow(paused=False)
        else:
            self.closed = True
            transport.abort()

    @property
    def reusable(self) -> bool:
        return not self.closed and not self.busy

    @property
    def waits_for_client(self) -> bool:
        """Whether it is the client who is slow."""
        return self._paused

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if not self.busy:
            self.close()  # nobody asked
            return
        self.heard = True
        sink = self._sink
        if self._between_chunks and sink is not None and not self._paused and data.endswith(b"\n\n\r\n"):
            at = data_of_chunk(data)
            if at:  # whole events, and nothing else, in one chunk
                try:
                    if not sink(data[at:-2], data):
                        return
                    self._sink_full = True
                    self._flow(paused=True)
                except Exception as error:  # noqa: BLE001  whoever pours hears of it
                    self._sink_error = error
                self._gate.open()
                return
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        first, repeat = not self._head_parsed, self._repeat
        if repeat is not None and first and self._resting and not self._head_bytes:
            body = repeat.body(data)
            if body is not None:
                self._read_before(body)
                return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.fail(self._hung_up(f"answered with what is not HTTP/1.1 ({error})"))
            return
        if data[-2:] != b"\r\n":
            self._between_chunks = False  # the head of the next one may have begun
        if not self._head_parsed:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEADER_BYTES:
                self.fail(self._hung_up("answered with too many bytes of headers"))
            return
        pieces = self._pieces
        if first and self.complete and not self._head_bytes:
            own = data[9:12] == b"%d" % self.status  # not that of an answer that came before it
            self._repeat = Repeat.of(data) if own and self._keep_alive else None
        if pieces:
            self.began = True
            sink = self._sink
            if sink is not None and not self._paused:
                piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                pieces.clear()
                try:
                    self._sink_full = sink(piece, None)
                except Exception as error:  # noqa: BLE001  as above
                    self._sink_error = error
                if self._sink_full:
                    self._flow(paused=True)
                elif not self.complete and self._sink_error is None:
                    return
            else:
                self._size += len(data)
                if self._size > BUFFER_BYTES and not self._whole and not self._paused:
                    self._flow(paused=True)
        self._gate.open()

    def _read_before(self, body: bytes) -> None:
        """A whole answer whose head is that of the last one, and still there."""
        self.length_bytes = len(body)
        self._head_parsed = self.complete = self.began = True
        self._pieces.append(body)
        self._gate.open()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._transport = None
        if self.busy and not self.complete and self._error is None:
            if self._head_parsed and self._until_close and exc is None:
                self.complete = True
            else:
                self._error = self._hung_up("closed the connection before its answer was complete")
        self._lost(self)
        self._gate.open()

    def _hung_up(self, what: str) -> WorkerHungUp:
        return WorkerHungUp(f"Worker {self.worker.id if self.worker else '?'} {what}.")

    def _flow(self, *, paused: bool) -> None:
        self._paused = paused
        if self._transport is not None:
            if paused:
                self._transport.pause_reading()
            else:
                self.heard = True
                self._transport.resume_reading()

    # -- httptools ----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("a second answer")
        self._resting = False
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_parsed:  # else a trailer
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return
        self._repeat = None  # what is known of the head is from here on that of another one
        names = dict(self._headers)
        length, kind, later = names.get(b"content-length"), names.get(b"content-type"), names.get(b"retry-after")
        self.retry_after = None if later is None else later.decode("latin-1")
        self.length_bytes = None if length is None else int(length)
        self._until_close = length is None and b"transfer-encoding" not in names and status not in (204, 304)
        self.streams = kind is not None and kind[:17].lower() == b"text/event-stream"
        dropped = _NOT_HANDED_ON
        if b"connection" in names:
            dropped = dropped | connection_options(self._headers)
        self.head = AnswerHead(status, [each for each in self._headers if each[0] not in dropped])
        self.status = status
        self._head_parsed = True

    def on_chunk_header(self) -> None:
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        self._between_chunks = True

    def on_message_complete(self) -> None:
        self._resting = True
        self._between_chunks = False
        if not self._head_parsed:  # 100 Continue, 103 Early Hints
            return
        self.complete = True
        self._keep_alive = self._parser.should_keep_alive()
