"""The app as a web server sees it, and model calls over ASGI, for servers but ours.

`trieway serve` takes model calls straight from the connection (inbound); all else of `Split` is FastAPI's. Made by app.
Not compiled: servers look at an app to find out of what kind it is.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from router.asgi import ASGIApp, Receive, Scope, Send, read_body
from router.errors import RouterError
from router.request import endpoints
from router.request.disconnect import LEFT, cancelled_when_client_leaves
from router.request.endpoints import ModelCalls, is_model_call
from router.request.head import Head
from router.request.reply import AnswerHead, RawHeaders, send_error
from router.request.strand import Strand


class Split:
    """The app: model calls one way, everything else the other."""

    def __init__(self, model_calls: ModelCalls, control: ASGIApp) -> None:
        self.model_calls = model_calls
        self._control = control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_model_call(scope["method"], scope["path"]):
            await over_asgi(self.model_calls, scope, receive, send)
        else:
            await self._control(scope, receive, send)


async def over_asgi(calls: ModelCalls, scope: Scope, receive: Receive, send: Send) -> None:
    """One model call."""
    at_s = calls.clock()
    query: bytes = scope["query_string"]
    target = scope["path"].encode("latin-1", "replace") + (b"?%b" % query if query else b"")
    head = Head(scope["path"], target, scope["headers"])
    reply = AsgiReply(send)
    try:
        body = await _read_body(calls, receive, head.text(b"content-length"))
    except RouterError as error:
        send_error(reply, error, scope["path"], head.given_id or calls.new_id())
        await reply.drained(but_end=True)
        if b"expect" not in head.named:  # such a client sends no body after an error
            await drain(receive)
        await reply.drained()
        return
    if body is None:
        return  # the client left while sending
    raw = calls.raw(head, body, at_s)
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    strand = Strand(loop, lambda _: None if over.done() else over.set_result(None))  # done: cancelled a second time
    async with cancelled_when_client_leaves(receive):
        try:
            strand.start(calls.dispatch(raw, reply, strand))
            await asyncio.shield(over)
        except asyncio.CancelledError as stop:
            strand.cancel(LEFT if LEFT in stop.args else None)
            await over
            await reply.drained()
            raise
        await reply.drained()


async def _read_body(calls: ModelCalls, receive: Receive, declared: str | None) -> bytes | None:
    """The whole body; None when the client left. Raises BodyTooLarge before reading what is declared too large."""
    limit = calls.max_body_bytes
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise calls.too_large(int(declared))
    return await read_body(receive, limit, lambda: calls.too_large(None))


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

    def write(self, data: bytes, chunk: bytes | None = None) -> bool:
        self._messages.append({"type": "http.response.body", "body": data, "more_body": True})
        return True

    async def drained(self, *, but_end: bool = False) -> None:
        """Send what was written; with `but_end` all but the end, which makes the server close the connection."""
        while self._messages and not (but_end and not self._messages[0].get("more_body", True)):
            await self._send(self._messages.pop(0))

    def finish(self) -> None:
        self._messages.append({"type": "http.response.body", "body": b"", "more_body": False})

    def abort(self) -> None:
        """Nothing to send: returning with the answer unfinished makes the server break the connection."""


async def drain(receive: Receive) -> None:
    """Take what a client still sends, so that it gets to read its answer, but not more than DRAIN_BYTES in DRAIN_S."""
    left = endpoints.DRAIN_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(endpoints.DRAIN_S):
            while left > 0:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))
