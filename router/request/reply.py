"""The client's side of one request, and how an error is told to it. Called by dispatch, relay and inbound."""

from __future__ import annotations

from http import HTTPStatus
from typing import Protocol

import msgspec

from router.errors import RouterError
from router.types import RequestId

RawHeaders = list[tuple[bytes, bytes]]


def status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


STATUS_LINES = {status: status_line(status) for status in range(100, 1000)}


def spelled(headers: RawHeaders) -> bytes:
    """The header lines as HTTP/1.1 has them."""
    return b"".join([b"%b: %b\r\n" % each for each in headers])


class AnswerHead:
    """Status and headers of an answer, which name no length. `lines` is how both look on the wire: spelled once,
    however often a worker repeats itself."""

    __slots__ = ("headers", "lines", "status")

    def __init__(self, status: int, headers: RawHeaders) -> None:
        self.status = status
        self.headers = headers
        self.lines = STATUS_LINES[status] + spelled(headers)

    @property
    def event_stream(self) -> bool:
        """Whether server-sent events follow."""
        return dict(self.headers).get(b"content-type", b"").startswith(b"text/event-stream")


class Reply(Protocol):
    """The client's side of one request. Writing never waits; whoever writes much waits for `drained` in between."""

    @property
    def started(self) -> bool:
        """Whether a byte was handed to the client: from then on nothing can be retried."""
        ...

    @property
    def event_stream(self) -> bool:
        """Whether it was started as server-sent events, so that an error event can still be read."""
        ...

    def start(self, head: AnswerHead, own: RawHeaders, length_bytes: int | None) -> None:
        """`own` are headers of ours. The length is None where it is not known yet."""
        ...

    def answer(self, head: AnswerHead, own: RawHeaders, body: bytes, *, close: bool = False) -> None:
        """A whole answer at once. With `close` it ends the connection."""
        ...

    def write(self, data: bytes, chunk: bytes | None = None) -> bool:
        """Whether the client reads too slowly: `drained` should be awaited before more is written. `chunk` is `data`
        as a chunk of HTTP/1.1, where it came as one."""
        ...

    async def drained(self) -> None:
        """Wait until the client has taken most of what was written."""
        ...

    def finish(self) -> None: ...
    def abort(self) -> None:
        """Break the connection: the only visible end left to an answer that is not a stream of events."""
        ...


def send_error(reply: Reply, error: RouterError, endpoint: str, request_id: RequestId) -> None:
    """Answer with the error, in whatever way is still open: as the answer, as an event that ends the stream, or by
    breaking the connection off when half of a plain answer is out."""
    if not reply.started:
        headers = [
            (b"content-type", b"application/json"),
            (b"x-request-id", request_id.encode("latin-1")),
        ]
        if error.retry_after_s is not None:
            headers.append((b"retry-after", str(error.retry_after_s).encode()))
        reply.answer(AnswerHead(error.status, headers), [], error.body(), close=error.closes)
    elif reply.event_stream:
        reply.write(error_event(endpoint, error))
        reply.finish()
    else:
        reply.abort()


def error_event(endpoint: str, error: RouterError) -> bytes:
    """The event that ends a stream which cannot be completed, in the dialect of the endpoint."""
    if endpoint == "/v1/messages":
        detail = {"type": "api_error", "message": error.message}
        return b"event: error\ndata: " + msgspec.json.encode({"type": "error", "error": detail}) + b"\n\n"
    if endpoint == "/v1/responses":
        event: dict[str, str | None] = {"type": "error", "code": error.code, "message": error.message, "param": None}
        return b"event: error\ndata: " + msgspec.json.encode(event) + b"\n\n"
    return b"data: " + error.body() + b"\n\n"
