"""What passed through when an answer was handed to the client. Made by request.relay, read by dispatch and record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from router.compiled import mypyc_attr
from router.request.usage import Usage


@mypyc_attr(acyclic=True)
@dataclass(init=False, slots=True, kw_only=True)
class Relayed:
    """What passed through. Times are on the monotonic clock; `first_s` is None when nothing came.

    `response_id` names what `/v1/responses` stored.
    """

    status: Final[int]
    first_s: Final[float | None]
    last_s: Final[float | None]
    events: Final[int]
    usage: Final[Usage]
    response_id: Final[str | None]

    def __init__(
        self,
        *,
        status: int,
        first_s: float | None,
        last_s: float | None,
        events: int,
        usage: Usage,
        response_id: str | None = None,
    ) -> None:
        self.status = status
        self.first_s = first_s
        self.last_s = last_s
        self.events = events
        self.usage = usage
        self.response_id = response_id
