"""One model call as the client's connection has it. Made by request.endpoints, served by request.dispatch."""

from __future__ import annotations

import msgspec

from router.request.head import Head
from router.types import RequestId, TraceContext


class RawRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One model call as it came in. `own_lines` are header lines of ours for its worker."""

    request_id: RequestId
    endpoint: str
    head: Head
    own_lines: bytes
    body: bytes
    at_s: float
    trace: TraceContext | None = None
