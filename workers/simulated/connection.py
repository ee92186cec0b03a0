"""One HTTP/1.1 connection of the simulated worker: bytes to `Request`, in order.

An asyncio.Protocol of our own rather than ASGI, because a simulated worker must be able to do what no framework allows
(reset mid-stream, lie about Content-Length, send byte by byte) and must write 20,000 events a second without a task
switch for each. Knows nothing of SGLang. Called by server.py, which supplies the handler. Not here: answers (reply.py).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from typing import Protocol, cast

import httptools

from workers.simulated.reply import TEXT, Reply, Request, status_line

MAX_BODY_BYTES = 512 * 1024 * 1024
"""Larger bodies get 413. SGLang sets no limit; a test machine needs one."""
MAX_HEADER_BYTES = 256 * 1024


class RequestHandler(Protocol):
    """Answers one request, now or later, by calling its reply. Must not raise."""

    def __call__(self, request: Request, reply: Reply) -> None: ...


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

    def abort(self) -> None:
        """Close now, whatever has not been sent: a client that does not read would keep it open."""
        if self._transport is not None:
            self._transport.abort()

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
            self.write(head % (status_line(status, False), TEXT, len(message)) + message)
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
