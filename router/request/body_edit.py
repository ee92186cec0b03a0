"""Fields added to a request's body without touching one byte of what the client wrote. Pure. Called by dispatch.

Everything a client sends is forwarded verbatim; only where the router must add a field (a request for usage, a DP
rank) are bytes put in behind the body's opening brace, and only if the client did not name that field itself.
"""

from __future__ import annotations

import msgspec

from router.fleet.worker import Worker
from router.request.parsed_request import ParsedRequest

ASKS_USAGE = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Streams of these tell usage only when asked. `/generate`, `/v1/messages` and `/v1/responses` always tell it."""
RANK_BY_HEADER = ASKS_USAGE
"""Where SGLang reads X-Data-Parallel-Rank (its PR 19832); elsewhere the rank goes into the body."""
HEADER_SINCE = (0, 5, 10)
"""First release with that header, and with `routed_dp_rank` for what was called `data_parallel_rank` before."""


def body_for(body: bytes, parsed: ParsedRequest, worker: Worker, *, ask_usage: bool) -> tuple[bytes, bool]:
    """The bytes to send to this worker, and whether they ask for usage that the client must not see."""
    if worker.rank is None and not parsed.stream:
        return body, False
    fields = _rank_field(parsed, worker)
    hide_usage = ask_usage and _must_ask(parsed, worker)
    if hide_usage:
        fields["stream_options"] = {"include_usage": True}
    if not fields or not can_add(body):
        return body, False
    return with_fields(body, fields), hide_usage


def can_add(body: bytes) -> bool:
    """Whether the body is a JSON object in UTF-8 that fields can be put into. UTF-16 and byte order marks are not."""
    head = body[:64].lstrip()
    return head[:1] == b"{" and b"\x00" not in head


def with_fields(body: bytes, fields: dict[str, object]) -> bytes:
    """The body with the fields in front of all others; it must be an object with at least one field of its own."""
    start = body.index(b"{") + 1
    return b"%s%s,%s" % (body[:start], msgspec.json.encode(fields)[1:-1], body[start:])


def _must_ask(parsed: ParsedRequest, worker: Worker) -> bool:
    """It streams, the client did not say either way, and the server does not tell usage by itself."""
    if not parsed.stream or parsed.endpoint not in ASKS_USAGE or parsed.names_usage:
        return False
    return worker.facts is None or not worker.facts.streams_usage


def _rank_field(parsed: ParsedRequest, worker: Worker) -> dict[str, object]:
    if worker.rank is None or parsed.names_rank:
        return {}
    release = worker.facts.release if worker.facts is not None else None
    if release is not None and release < HEADER_SINCE:
        return {"data_parallel_rank": worker.rank}
    return {} if parsed.endpoint in RANK_BY_HEADER else {"routed_dp_rank": worker.rank}
