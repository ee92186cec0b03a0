"""A request as the API modules see it, and the reply they write. Bytes of HTTP/1.1; knows nothing of SGLang.

A reply belongs to a connection (connection.py), reached through `Wire`. Faults hook in here: see `Reply`.
"""

from __future__ import annotations

import http
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec

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


class Wire(Protocol):
    """What a reply needs of its connection."""

    lost: bool

    def write(self, data: bytes) -> None: ...
    def reply_done(self, keep_alive: bool) -> None: ...
    def close(self) -> None: ...
    def reset(self) -> None: ...
    def throttle(self, bytes_per_s: float) -> None: ...


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

    def __init__(self, connection: Wire, *, head_only: bool, keep_alive: bool) -> None:
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
        head = b"%scontent-length: %d\r\n%s\r\n" % (status_line(status, self._keep_alive), length, headers)
        self._write(head if self._head_only else head + body)
        self._finish()

    def start(self, status: int = 200, content_type: bytes = EVENT_STREAM) -> None:
        """Begin a chunked stream."""
        if self._started or self.closed:
            return
        self._started = True
        self._write(
            b"%scontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n"
            % (status_line(status, self._keep_alive), content_type)
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


def status_line(status: int, keep_alive: bool) -> bytes:
    """The first lines of an answer."""
    line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    return line if keep_alive else line + b"connection: close\r\n"


_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %s\r\nserver: trieway-simulated\r\n" % (status.value, status.phrase.encode())
    for status in http.HTTPStatus
}
