"""Which requests are model calls, and what of each is handed to dispatch.

`trieway serve` takes model calls straight from the connection (request.model_call), any other ASGI server through
over_asgi. FastAPI serves everything else. Called by app, inbound, model_call and over_asgi. Not here: what is in the
body (parse), what happens to it (dispatch).
"""

from __future__ import annotations

from collections.abc import Coroutine
from random import Random
from typing import Any, Protocol

from router.clock import Clock
from router.errors import BodyTooLarge, RouterError
from router.request.head import Head
from router.request.parse import NEEDS
from router.request.raw_request import RawRequest
from router.request.reply import Reply
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


class Dispatches(Protocol):
    """What serves model calls: request.dispatch."""

    def dispatch(self, raw: RawRequest, reply: Reply, strand: Strand) -> Coroutine[Any, Any, None]: ...
    def admit_stranger(self, head: Head) -> None: ...


class ModelCalls:
    """All model calls of one app, whichever way they come."""

    def __init__(
        self, dispatcher: Dispatches, max_body_bytes: int, clock: Clock, tracer: Tracer | None = None
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
        return RequestId("req-" + self._ids.getrandbits(64).to_bytes(8, "big").hex())


def is_model_call(method: str, path: str) -> bool:
    """Whether this is for `ModelCalls`; everything else is FastAPI's."""
    return path in MODEL_CALLS and (method == "POST" or (method == "PUT" and path in PUT_TOO))
