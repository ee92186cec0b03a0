"""The vocabulary of the router: identities, keys of prompts, what workers report, what happens to them.

Frozen records only; no behaviour beyond derived properties, no I/O. Everything may import this module and it imports
nothing of the project. Start reading here, then records: what every request makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NewType, Protocol, TypeAlias

import msgspec

WorkerId = NewType("WorkerId", str)
"""Names one thing we can address (a replica, or one DP rank of it). Never its URL."""
RequestId = NewType("RequestId", str)
ArmName = NewType("ArmName", str)


class Reason(Enum):
    """Why a policy chose a worker. Values are stable: metrics, logs and replay use them."""

    ONLY_WORKER = "only_worker"
    RANDOM = "random"
    TURN = "turn"
    LEAST_LOADED = "least_loaded"
    SESSION = "session"
    SESSION_OVERFLOW = "session_overflow"
    PREFIX = "prefix"
    PREFIX_BUSY = "prefix_busy"
    NO_PREFIX = "no_prefix"
    LOWEST_COST = "lowest_cost"


class PromptKey(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What of a prompt a worker's KV cache could reuse.

    `blocks` are chained hashes of pieces of the prompt, first piece first; two prompts share their first n hashes
    exactly when they share namespace and the first n pieces. A last, partial piece has no hash. Pieces grow with their
    depth as router.prefix.block_sizes says; `unit_tokens` is the size of the first ones, and `prompt_tokens` that of
    the prompt, both in tokens; they are estimates when the key was made from text, and exact when it was made from
    token ids.
    """

    blocks: Sequence[int]
    unit_tokens: float
    prompt_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """One worker's own words about its load (`GET /v1/loads`), with the time we heard them on the monotonic clock."""

    at_s: float
    running: int
    waiting: int
    waiting_uncached_tokens: int | None
    used_tokens: int
    capacity_tokens: int
    max_running: int | None = None
    token_usage: float | None = None


class WorkerView(Protocol):
    """What a policy may see of a worker. Read-only; the numbers are those of this moment."""

    @property
    def id(self) -> WorkerId: ...
    @property
    def in_flight(self) -> int:
        """Requests we sent there that have not ended."""
        ...

    @property
    def load(self) -> LoadReport | None:
        """The last load report, or None where none has come."""
        ...


Workers: TypeAlias = Sequence[WorkerView]
"""At least one worker, all eligible, in the order in which they joined."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One worker as the policy weighed it: the match it expects there and its cost, term by term, in seconds."""

    worker: WorkerId
    match_tokens: float
    terms_s: tuple[tuple[str, float], ...] = ()

    @property
    def cost_s(self) -> float:
        return sum(value for _, value in self.terms_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceContext:
    """Where a request stands in its trace: ids in hex as W3C Trace Context writes them; `span_id` is ours."""

    trace_id: str
    span_id: str
    parent_id: str | None


# What happens in the fleet, told to every policy through `observe` in the order in which it happened.


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerJoined:
    worker: WorkerId
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLeft:
    """The worker is gone for good: forget all that was learned of it."""

    worker: WorkerId
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheCleared:
    """The worker's KV cache is empty again (flushed or restarted); its speed is still what it was."""

    worker: WorkerId
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed:
    """The worker did not answer this request; it may go to another one next. Undo what Dispatched booked.

    `code` is that of `router.errors`: it says whether the worker was busy, broken or gone.
    """

    request_id: RequestId
    worker: WorkerId
    at_s: float
    code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReported:
    worker: WorkerId
    load: LoadReport
    at_s: float = field(default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerChanged:
    """The worker went from one state to another; both by name (see fleet.worker)."""

    worker: WorkerId
    before: str
    after: str
    why: str
    at_s: float
