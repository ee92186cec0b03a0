"""One HTTP/1.1 connection of the simulated worker: bytes to `Request`, `Reply` to bytes.

An asyncio.Protocol of our own rather than ASGI, because a simulated worker must be able to do what no framework allows
(reset mid-stream, lie about Content-Length, send byte by byte) and must write 20,000 events a second without a task
switch for each. Knows nothing of SGLang. Called by server.py, which supplies the handler.
"""

from __future__ import annotations

import asyncio
import http
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import httptools
import msgspec

MAX_BODY_BYTES = 512 * 1024 * 1024
"""Larger bodies get 413. SGLang sets no limit; a test machine needs one."""
MAX_HEADER_BYTES = 256 * 1024

EVENT_STREAM = b"text/event-stream; charset=utf-8"
JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"

_encode_json = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A whole request. Header names are lower case; of repeated headers the last one counts."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


class RequestHandler(Protocol):
    """Answers one request, now or later, by calling its reply. Must not raise."""

    def __call__(self, request: Request, reply: Reply) -> None: ...


class Reply:
    """The answer to one request. `send` for a whole one; `start`, `write`, `end` for a stream.

    After the client has gone, or after `reset`, every call is ignored and `closed` is true; `on_close`, when set, is
    called once at that moment. For faults: `transform`, when set, sees every piece of the answer before it is sent and
    returns what to send instead; `length_error` is added to the Content-Length of a whole answer.
    """

    __slots__ = (
        "_connection",
        "_ended",
        "_head_only",
        "_keep_alive",
        "_started",
        "length_error",
        "on_close",
        "transform",
    )

    def __init__(self, connection: Connection, *, head_only: bool, keep_alive: bool) -> None:
        self._connection = connection
        self._head_only = head_only
        self._keep_alive = keep_alive
        self._started = False
        self._ended = False
        self.on_close: Callable[[], None] | None = None
        self.transform: Callable[[bytes], bytes] | None = None
        self.length_error = 0

    @property
    def closed(self) -> bool:
        return self._connection.lost or self._ended

    @property
    def started(self) -> bool:
        """Whether a status line has been sent."""
        return self._started

    def send_json(self, value: object, status: int = 200) -> None:
        self.send(_encode_json(value), status)

    def send(
        self,
        body: bytes,
        status: int = 200,
        content_type: bytes | None = JSON,
        *,
        headers: bytes = b"",
    ) -> None:
        """A whole answer. `headers` are further lines, each ending CRLF."""
        if self._started or self.closed:
            return
        self._started = True
        if self.length_error:
            self._keep_alive = False
        length = max(0, len(body) + self.length_error)
        if content_type is not None:
            headers = b"content-type: %s\r\n%s" % (content_type, headers)
        head = b"%scontent-length: %d\r\n%s\r\n" % (_status_line(status, self._keep_alive), length, headers)
        self._write(head if self._head_only else head + body)
        self._finish()

    def start(self, status: int = 200, content_type: bytes = EVENT_STREAM) -> None:
        """Begin a chunked stream."""
        if self._started or self.closed:
            return
        self._started = True
        self._write(
            b"%scontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n"
            % (_status_line(status, self._keep_alive), content_type)
        )

    def write(self, data: bytes) -> None:
        """One chunk of the stream; events written together travel together."""
        if data and not self.closed:
            self._write(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self) -> None:
        """The end of the stream, as HTTP marks it."""
        if not self.closed:
            self._write(b"0\r\n\r\n")
            self._finish()

    def end_early(self) -> None:
        """End the stream as HTTP ends it, wherever it is; whoever writes it is told as if the client had left."""
        callback, self.on_close = self.on_close, None
        self.transform = None
        self.end()
        if callback is not None:
            callback()

    def cut(self) -> None:
        """Close the connection in order (FIN) without ending the answer."""
        self._connection.close()

    def throttle(self, bytes_per_s: float) -> None:
        """From here on the connection sends no faster than this."""
        self._connection.throttle(bytes_per_s)

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        self._connection.reset()

    def lost(self) -> None:
        """For the connection: the client has gone."""
        if self.on_close is not None and not self._ended:
            callback, self.on_close = self.on_close, None
            callback()
        self._ended = True

    def _write(self, data: bytes) -> None:
        if self.transform is not None:
            data = self.transform(data)
        if data:
            self._connection.write(data)

    def _finish(self) -> None:
        self._ended = True
        self.on_close = None
        self._connection.reply_done(self._keep_alive)


class Connection(asyncio.Protocol):
    """Parses requests in order and answers them in order; pipelined requests wait for the one before them."""

    def __init__(self, handler: RequestHandler, connections: set[Connection]) -> None:
        self._handler = handler
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._waiting: deque[tuple[Request, Reply]] = deque()
        self._current: Reply | None = None
        self._pipe: _SlowPipe | None = None
        self.lost = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the methods and not the base class
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._reject(400, b"Unsupported upgrade request.")
        except httptools.HttpParserError:
            self._reject(400, b"Invalid HTTP request received.")

    def eof_received(self) -> bool:
        return False  # close: a client that has finished sending has left, as uvicorn sees it

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.lost = True
        self._connections.discard(self)
        if self._current is not None:
            self._current.lost()
        for _, reply in self._waiting:
            reply.lost()
        self._waiting.clear()

    # httptools callbacks

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = {}
        self._header_bytes = 0
        self._body = []
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES:
            self._reject(431, b"Request header fields too large.")
            return
        self._headers[name.lower().decode("latin-1")] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > MAX_BODY_BYTES:
            self._reject(413, b"Request body too large.")
            return
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self.lost:
            return
        method = self._parser.get_method().decode("latin-1")
        path, _, query = self._url.decode("latin-1").partition("?")
        request = Request(method=method, path=path, query=query, headers=self._headers, body=b"".join(self._body))
        self._body = []
        reply = Reply(self, head_only=method == "HEAD", keep_alive=self._parser.should_keep_alive())
        if self._current is None:
            self._current = reply
            self._handler(request, reply)
        else:
            self._waiting.append((request, reply))

    # for Reply and the server

    def write(self, data: bytes) -> None:
        if self._transport is None or self.lost:
            return
        if self._pipe is not None:
            self._pipe.write(data)
        else:
            self._transport.write(data)

    def reply_done(self, keep_alive: bool) -> None:
        self._current = None
        if not keep_alive:
            self.close()
        elif self._waiting and not self.lost:
            request, reply = self._waiting.popleft()
            self._current = reply
            self._handler(request, reply)

    def close(self) -> None:
        """Close in order once everything written has been sent."""
        if self._pipe is not None:
            self._pipe.close()
        elif self._transport is not None:
            self._transport.close()

    def throttle(self, bytes_per_s: float) -> None:
        if self._transport is not None and self._pipe is None:
            self._pipe = _SlowPipe(self._transport, bytes_per_s)

    def reset(self) -> None:
        """Close with RST instead of FIN: linger zero."""
        if self._transport is None:
            return
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _reject(self, status: int, message: bytes) -> None:
        if self._current is None and not self.lost:
            head = b"%scontent-type: %s\r\ncontent-length: %d\r\n\r\n"
            self.write(head % (_status_line(status, False), TEXT, len(message)) + message)
        self.close()
        self.lost = True


class _SlowPipe:
    """Sends what it is given at a bounded rate, a little every 20 ms."""

    TICK_S = 0.02

    def __init__(self, transport: asyncio.Transport, bytes_per_s: float) -> None:
        self._transport = transport
        self._share = max(1, int(bytes_per_s * self.TICK_S))
        self._tick_s = self._share / bytes_per_s
        self._waiting = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False

    def write(self, data: bytes) -> None:
        self._waiting += data
        if self._timer is None:
            self._send()

    def close(self) -> None:
        self._closing = True
        if not self._waiting:
            self._transport.close()

    def _send(self) -> None:
        self._timer = None
        if self._transport.is_closing():
            return
        self._transport.write(bytes(self._waiting[: self._share]))
        del self._waiting[: self._share]
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(self._tick_s, self._send)
        elif self._closing:
            self._transport.close()


def _status_line(status: int, keep_alive: bool) -> bytes:
    line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    return line if keep_alive else line + b"connection: close\r\n"


_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %s\r\nserver: trieway-simulated\r\n" % (status.value, status.phrase.encode())
    for status in http.HTTPStatus
}
