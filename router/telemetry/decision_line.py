"""The schema of the decision log: one JSON line per request, and the first line of every file.

Versioned: VERSION grows when a reader of the old version would misread a line; new optional fields do not change it.
Prompts are block hashes and sessions are hashed, unless text is switched on. Pure. Called by decision_log.
Documented in docs/decision-log.md; read by loadtests (decision_log_trace) over the file alone.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec
from xxhash import xxh3_64_hexdigest

from router.records import Outcome

VERSION = 2

_encode = msgspec.json.Encoder().encode


class Head(msgspec.Struct, kw_only=True):
    """The first line of a file. `started_at` is ISO 8601 in UTC; `text` says whether lines carry request bodies;
    `block_bytes` is the size of a prompt's first blocks: hashes of different sizes cannot be compared."""

    trieway_decision_log: int
    trieway: str
    started_at: str
    block_bytes: int
    text: bool


class Line(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One request. Times ending in `_s` are seconds; `at_unix_s` is its arrival in Unix time.

    `blocks` are the prompt's chained block hashes, 16 hex digits each, without separators; `block_tokens` is the size
    of a block and `key_tokens` the size of the prompt as the router estimated it, in tokens. Absent means unknown.
    """

    request_id: str
    at_unix_s: float
    endpoint: str
    status: int
    e2e_s: float
    policy: str
    model: str | None = None
    session: str | None = None
    client: str | None = None
    stream: bool = False
    max_output_tokens: int | None = None
    blocks: str = ""
    block_tokens: float | None = None
    key_tokens: float | None = None
    arm: str | None = None
    spilled: bool = False
    worker: str | None = None
    reason: str | None = None
    match_tokens: float | None = None
    match_blocks: int | None = None
    expected_ttft_s: float | None = None
    decision_s: float = 0.0
    held_s: float = 0.0
    attempts: int = 0
    error: str | None = None
    client_gone: bool = False
    ttft_s: float | None = None
    itl_mean_s: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    body: str | None = None


def head_line(*, trieway: str, started_at: str, block_bytes: int, text: bool) -> bytes:
    head = Head(
        trieway_decision_log=VERSION, trieway=trieway, started_at=started_at, block_bytes=block_bytes, text=text
    )
    return _encode(head) + b"\n"


def outcome_line(outcome: Outcome, at_unix_s: float, body: bytes | None) -> bytes:
    """One outcome as a line. With `body` (text switched on) session names are written as they are."""
    decision, key = outcome.decision, outcome.key
    line = Line(
        request_id=outcome.request_id,
        at_unix_s=round(at_unix_s, 6),
        endpoint=outcome.endpoint,
        status=outcome.status,
        e2e_s=_micros(outcome.e2e_s),
        policy=outcome.policy,
        model=outcome.model,
        session=_session(outcome.session, hide=body is None),
        client=outcome.client,
        stream=outcome.stream,
        max_output_tokens=outcome.max_output_tokens,
        arm=outcome.arm,
        spilled=outcome.spilled,
        decision_s=_micros(outcome.decision_s),
        held_s=_micros(outcome.held_s),
        attempts=outcome.attempts,
        error=outcome.error,
        client_gone=outcome.client_gone,
        ttft_s=None if outcome.ttft_s is None else _micros(outcome.ttft_s),
        itl_mean_s=None if outcome.itl_mean_s is None else _micros(outcome.itl_mean_s),
        prompt_tokens=outcome.prompt_tokens,
        cached_tokens=outcome.cached_tokens,
        completion_tokens=outcome.completion_tokens,
        body=None if body is None else body.decode("utf-8", "replace"),
    )
    if key is not None:
        line.blocks, line.block_tokens, line.key_tokens = _hex(key.blocks), key.unit_tokens, key.prompt_tokens
    if decision is not None:
        line.worker, line.reason = decision.worker, decision.reason.value
        line.match_tokens, line.match_blocks = decision.match_tokens, decision.match_blocks
        line.expected_ttft_s = decision.expected_ttft_s
    return _encode(line) + b"\n"


def _micros(seconds: float) -> float:
    return round(seconds, 6)


def _session(name: str | None, *, hide: bool) -> str | None:
    return xxh3_64_hexdigest(name) if name is not None and hide else name


def _hex(blocks: Sequence[int]) -> str:
    """Hashes as 16 hex digits each, the most significant first."""
    return struct.pack(f">{len(blocks)}Q", *blocks).hex()
