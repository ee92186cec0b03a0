"""One model call as the client's connection has it. Made by request.endpoints, served by request.dispatch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from router.compiled import mypyc_attr
from router.request.head import Head
from router.types import RequestId, TraceContext


@mypyc_attr(acyclic=True)
@dataclass(init=False, slots=True, kw_only=True)
class RawRequest:
    """One model call as it came in. `own_lines` are header lines of ours for its worker."""

    request_id: Final[RequestId]
    endpoint: Final[str]
    head: Final[Head]
    own_lines: Final[bytes]
    body: Final[bytes]
    at_s: Final[float]
    trace: Final[TraceContext | None]

    def __init__(
        self,
        *,
        request_id: RequestId,
        endpoint: str,
        head: Head,
        own_lines: bytes,
        body: bytes,
        at_s: float,
        trace: TraceContext | None = None,
    ) -> None:
        self.request_id = request_id
        self.endpoint = endpoint
        self.head = head
        self.own_lines = own_lines
        self.body = body
        self.at_s = at_s
        self.trace = trace
