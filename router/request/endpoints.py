"""Which requests are model calls, what of each is handed to dispatch, and the same over ASGI for servers but ours.

`trieway serve` takes model calls straight from the connection (request.model_call); under any other ASGI server they
come through `ModelCalls.__call__`. FastAPI serves everything else. Called by app, inbound and model_call. Not here:
what is in the body (parse), what happens to it (dispatch).
"""

from __future__ import annotations

import asyncio
import contextlib
from random import Random
from typing import Any

from router.asgi import ASGIApp, Receive, Scope, Send, read_body
from router.clock import Clock
from router.errors import BodyTooLarge, RouterError
from router.request.disconnect import LEFT, cancelled_when_client_leaves
from router.request.dispatch import Dispatcher
from router.request.head import Head
from router.request.parse import NEEDS
from router.request.raw_request import RawRequest
from router.request.reply import AnswerHead, RawHeaders, send_error
from router.request.strand import Strand
from router.telemetry.tracing import Tracer, traceparent
from router.types import RequestId

MODEL_CALLS = frozenset(NEEDS)
"""Paths that are dispatched to a worker by POST."""
PUT_TOO = frozenset({"/generate", "/encode", "/classify", "/v1/rerank"})
"""Those that SGLang takes by PUT as well; workers get them by POST."""
DRAIN_BYTES = 256 * 2**20
DRAIN_S = 10.0
"""How much of a body that is too large is taken, and how long, before the connection is closed on its sender."""


class ModelCalls:
    """All model calls of one app, whichever way they come."""

    def __init__(
        self, dispatcher: Dispatcher, max_body_bytes: int, clock: Clock, tracer: Tracer | None = None
    ) -> None:
        self._dispatcher = dispatcher
        self.dispatch = dispatcher.dispatch
        self.max_body_bytes = max_body_bytes
        self.clock = clock
        self._tracer = tracer
        self._ids = Random()

    def raw(self, head: Head, body: bytes, at_s: float) -> RawRequest:
        """One model call as dispatch takes it; it gets an id, and a span if there is tracing."""
        request_id = head.given_id or self.new_id()
        own_lines, trace = b"x-request-id: %b\r\n" % request_id.encode("latin-1"), None
        if self._tracer is not None:
            trace = self._tracer.begin(head.texts)
            if trace is not None:
                own_lines += b"traceparent: %b\r\n" % traceparent(trace)
        return RawRequest(
            request_id=request_id,
            endpoint=head.endpoint,
            head=head,
            own_lines=own_lines,
            body=body,
            at_s=at_s,
            trace=trace,
        )

    def too_large(self, size_bytes: int | None) -> BodyTooLarge:
        """The error for a body of that size; None when it is only known to be over the limit."""
        limit = self.max_body_bytes
        if size_bytes is None:
            return BodyTooLarge(f"The body is over the limit of {limit:,} bytes (--max-body-bytes).")
        return BodyTooLarge(f"The body is {size_bytes:,} bytes, over the limit of {limit:,} (--max-body-bytes).")

    def refusal_of_stranger(self, head: Head) -> RouterError | None:
        """Why a request with this head would be refused whatever its body is; None if it would not."""
        try:
            self._dispatcher.admit_stranger(head)
        except RouterError as error:
            return error
        return None

    def new_id(self) -> RequestId:
        """For a request whose client gave it none."""
        return RequestId(f"req-{self._ids.getrandbits(64):016x}")

    # -- over ASGI ----------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        at_s = self.clock()
        query: bytes = scope["query_string"]
        target = scope["path"].encode("latin-1", "replace") + (b"?%b" % query if query else b"")
        head = Head(scope["path"], target, scope["headers"])
        reply = AsgiReply(send)
        try:
            body = await self._read_body(receive, head.text(b"content-length"))
        except RouterError as error:
            send_error(reply, error, scope["path"], head.given_id or self.new_id())
            await reply.drained(but_end=True)
            if b"expect" not in head.named:  # such a client sends no body after an error
                await drain(receive)
            await reply.drained()
            return
        if body is None:
            return  # the client left while sending
        raw = self.raw(head, body, at_s)
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        strand = Strand(loop, lambda _: None if over.done() else over.set_result(None))  # done: cancelled a second time
        async with cancelled_when_client_leaves(receive):
            try:
                strand.start(self.dispatch(raw, reply, strand))
                await asyncio.shield(over)
            except asyncio.CancelledError as stop:
                strand.cancel(LEFT if LEFT in stop.args else None)
                await over
                await reply.drained()
                raise
            await reply.drained()

    async def _read_body(self, receive: Receive, declared: str | None) -> bytes | None:
        """The whole body; None when the client left. Raises BodyTooLarge before reading what is declared too large."""
        limit = self.max_body_bytes
        if declared is not None and declared.isdigit() and int(declared) > limit:
            raise self.too_large(int(declared))
        return await read_body(receive, limit, lambda: self.too_large(None))


class Split:
    """The app: model calls one way, everything else the other."""

    def __init__(self, model_calls: ModelCalls, control: ASGIApp) -> None:
        self.model_calls = model_calls
        self._control = control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_model_call(scope["method"], scope["path"]):
            await self.model_calls(scope, receive, send)
        else:
            await self._control(scope, receive, send)


class AsgiReply:
    """The client's side of one request over ASGI's `send`; what is written waits for `drained`."""

    __slots__ = ("_messages", "_send", "event_stream", "started")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._messages: list[dict[str, Any]] = []
        self.started = False
        self.event_stream = False

    def start(self, head: AnswerHead, own: RawHeaders, length_bytes: int | None) -> None:
        self.started = True
        self.event_stream = head.event_stream
        headers = [*head.headers, *own]
        if length_bytes is not None:
            headers.append((b"content-length", b"%d" % length_bytes))
        self._messages.append({"type": "http.response.start", "status": head.status, "headers": headers})

    def answer(self, head: AnswerHead, own: RawHeaders, body: bytes, *, close: bool = False) -> None:
        self.start(head, [*own, (b"connection", b"close")] if close else own, len(body))
        self.write(body)
        self.finish()

    def write(self, data: bytes, chunk: bytes | None = None) -> None:
        self._messages.append({"type": "http.response.body", "body": data, "more_body": True})

    @property
    def full(self) -> bool:
        return bool(self._messages)

    async def drained(self, *, but_end: bool = False) -> None:
        """Send what was written; with `but_end` all but the end, which makes the server close the connection."""
        while self._messages and not (but_end and not self._messages[0].get("more_body", True)):
            await self._send(self._messages.pop(0))

    def finish(self) -> None:
        self._messages.append({"type": "http.response.body", "body": b"", "more_body": False})

    def abort(self) -> None:
        """Nothing to send: returning with the answer unfinished makes the server break the connection."""


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


def is_model_call(method: str, path: str) -> bool:
    """Whether this is for `ModelCalls`; everything else is FastAPI's."""
    return path in MODEL_CALLS and (method == "POST" or (method == "PUT" and path in PUT_TOO))
