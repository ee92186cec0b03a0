"""What passed through when an answer was handed to the client. Made by request.relay, read by dispatch and record."""

from __future__ import annotations

import msgspec

from router.request.usage import Usage


class Relayed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What passed through. Times are on the monotonic clock; `first_s` is None when nothing came.

    `response_id` names what `/v1/responses` stored.
    """

    status: int
    first_s: float | None
    last_s: float | None
    events: int
    usage: Usage
    response_id: str | None = None
