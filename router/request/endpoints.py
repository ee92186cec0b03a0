"""The model calls as a lean ASGI app: reads the body within its limit and hands over to dispatch.

FastAPI serves everything else; its request handling costs 80 us a call that this path does not pay. Called by app.
Not here: what is in the body (parse), what happens to it (dispatch).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets

from router.asgi import Receive, Scope, Send
from router.clock import Clock
from router.errors import BodyTooLarge, RouterError
from router.request.disconnect import cancelled_when_client_leaves
from router.request.dispatch import Dispatcher, RawRequest
from router.request.parse import NEEDS
from router.request.reply import RawHeaders, send_error
from router.telemetry.tracing import Tracer, with_traceparent
from router.types import RequestId

MODEL_CALLS = frozenset(NEEDS)
"""Paths that are dispatched to a worker by POST."""
PUT_TOO = frozenset({"/generate", "/encode", "/classify", "/v1/rerank"})
"""Those that SGLang takes by PUT as well; workers get them by POST."""
DRAIN_BYTES = 256 * 2**20
DRAIN_S = 10.0
"""How much of a body that is too large is taken, and how long, before the connection is closed on its sender."""
_MAX_ID = 128


class AsgiReply:
    """The client's side of one request over ASGI's `send`."""

    __slots__ = ("_send", "event_stream", "started")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self.event_stream = False

    async def start(self, status: int, headers: RawHeaders) -> None:
        self.started = True
        self.event_stream = any(
            name.lower() == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers
        )
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def abort(self) -> None:
        """Nothing to send: returning with the answer unfinished makes the server break the connection."""


class HeldOpen:
    """A reply that is whole but for its end, which makes the server close the connection."""

    def __init__(self, reply: AsgiReply) -> None:
        self.start, self.write, self.abort = reply.start, reply.write, reply.abort
        self.started = self.event_stream = False

    async def finish(self) -> None:
        """Not yet."""


async def drain(receive: Receive) -> None:
    """Take what a client still sends, so that it gets to read its answer, but not more than DRAIN_BYTES and DRAIN_S."""
    left = DRAIN_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while left > 0:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))


class ModelCalls:
    """The ASGI app for `MODEL_CALLS`."""

    def __init__(
        self, dispatcher: Dispatcher, max_body_bytes: int, clock: Clock, tracer: Tracer | None = None
    ) -> None:
        self._dispatcher = dispatcher
        self._max_body_bytes = max_body_bytes
        self._clock = clock
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        at_s = self._clock()
        headers: RawHeaders = scope["headers"]
        named = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        request_id = request_id_of(named.get("x-request-id"))
        reply = AsgiReply(send)
        try:
            body = await self._read_body(receive, named.get("content-length"))
        except RouterError as error:
            await send_error(HeldOpen(reply), error, scope["path"], request_id)
            if "expect" not in named:  # such a client sends no body after an error
                await drain(receive)
            await reply.finish()
            return
        if body is None:
            return  # the client left while sending
        if named.get("x-request-id") != request_id:
            headers = with_request_id(headers, request_id)
        trace = self._tracer.begin(named) if self._tracer else None
        if trace:
            headers = with_traceparent(headers, trace)
        query: bytes = scope["query_string"]
        raw = RawRequest(
            request_id=request_id,
            endpoint=scope["path"],
            target=scope["path"] + (f"?{query.decode('latin-1')}" if query else ""),
            headers=headers,
            named_headers=named,
            body=body,
            at_s=at_s,
            trace=trace,
        )
        async with cancelled_when_client_leaves(receive):
            await self._dispatcher.dispatch(raw, reply)

    async def _read_body(self, receive: Receive, declared: str | None) -> bytes | None:
        """The whole body; None when the client left. Raises BodyTooLarge before reading what is declared too large."""
        limit = self._max_body_bytes
        if declared is not None and declared.isdigit() and int(declared) > limit:
            raise BodyTooLarge(f"The body is {int(declared):,} bytes, over the limit of {limit:,} (--max-body-bytes).")
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            piece: bytes = message.get("body", b"")
            size += len(piece)
            if size > limit:
                raise BodyTooLarge(f"The body is over the limit of {limit:,} bytes (--max-body-bytes).")
            pieces.append(piece)
            if not message.get("more_body", False):
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def is_model_call(method: str, path: str) -> bool:
    """Whether this is for `ModelCalls`; everything else is FastAPI's."""
    return path in MODEL_CALLS and (method == "POST" or (method == "PUT" and path in PUT_TOO))


def with_request_id(headers: RawHeaders, request_id: RequestId) -> RawHeaders:
    """The headers with this request id instead of any other."""
    others = [(name, value) for name, value in headers if name != b"x-request-id"]
    return [*others, (b"x-request-id", request_id.encode("latin-1"))]


def request_id_of(given: str | None) -> RequestId:
    """The client's own id if it is a sane one, else a new one."""
    if given and len(given) <= _MAX_ID and given.isascii() and given.isprintable():
        return RequestId(given)
    return RequestId(f"req-{secrets.token_hex(8)}")
