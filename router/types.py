"""The vocabulary of the router: identities, what a request is to a policy, what a decision and its outcome are.

Frozen records only; no behaviour beyond derived properties, no I/O. Everything may import this module and it imports
nothing of the project. What every request makes is a msgspec.Struct, which is built in C: a frozen dataclass calls
`object.__setattr__` for each field, and an Outcome has 26. All else is a dataclass. Start reading here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


class RoutingRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All that a policy may know of one request. Immutable; the same object is shown to shadows and replay.

    `at_s` is when it is decided, on the clock of the events' `at_s`: a policy has no other clock. That is when it
    arrived, or later where it was held at the router. `known_match_tokens`
    is how many leading prompt tokens workers hold by their own KV events (exact mode); of a worker that is not in it
    nothing is known, and the policy's own index counts. `known_prompt_tokens` is the prompt's true size then; `key`
    stays what it is without exact mode, so that what is learned of keys holds in both.
    """

    request_id: RequestId
    endpoint: str
    key: PromptKey
    at_s: float = 0.0
    model: str | None = None
    session: str | None = None
    client: str | None = None
    stream: bool = False
    max_output_tokens: int | None = None
    known_match_tokens: Mapping[WorkerId, int] | None = None
    known_prompt_tokens: int | None = None


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


class Decision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where a request goes, why, and what the policy expects there.

    `match_tokens` is the prefix match it predicts on that worker (0 where it does not predict); `expected_ttft_s` is
    None for policies that do not predict time, and so is `expected_wait_s`, the part of it that is not the request's
    own prefill. `hold`: that wait is so long that the request is better held at the router and decided later.
    """

    worker: WorkerId
    reason: Reason
    match_tokens: float = 0.0
    match_blocks: int = 0
    expected_ttft_s: float | None = None
    expected_wait_s: float | None = None
    hold: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceContext:
    """Where a request stands in its trace: ids in hex as W3C Trace Context writes them; `span_id` is ours."""

    trace_id: str
    span_id: str
    parent_id: str | None


class Outcome(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The one record of a request: metrics, logs, experiments and policies all read it and nothing else measures.

    Times are seconds on the monotonic clock, durations start when the request was dispatched (`at_s`). Token counts
    are the worker's own report and None where it gave none. `error` is an error code of `router.errors` or None.
    `worker` is None when no worker was ever chosen; `attempts` counts workers tried. `spilled`: it belonged to `arm`
    but had to leave that arm's workers, so it says nothing about the arm. `held_s` is how long it waited at the router
    because every worker's queue was long; `expected_ttft_s` of the decision counts from the end of that.
    """

    request_id: RequestId
    endpoint: str
    at_s: float
    status: int
    e2e_s: float
    policy: str = ""
    arm: ArmName | None = None
    spilled: bool = False
    model: str | None = None
    session: str | None = None
    client: str | None = None
    max_output_tokens: int | None = None
    decision: Decision | None = None
    decision_s: float = 0.0
    held_s: float = 0.0
    attempts: int = 0
    stream: bool = False
    error: str | None = None
    client_gone: bool = False
    ttft_s: float | None = None
    itl_mean_s: float | None = None
    events: int = 0
    key: PromptKey | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    trace: TraceContext | None = None

    @property
    def worker(self) -> WorkerId | None:
        return None if self.decision is None else self.decision.worker

    @property
    def ttft_after_hold_s(self) -> float | None:
        """What a decision's `expected_ttft_s` foretold."""
        return None if self.ttft_s is None else self.ttft_s - self.held_s

    @property
    def ok(self) -> bool:
        return self.error is None and self.status < 400


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


class Dispatched(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The request was sent: book its load and its prefix now, so that a burst spreads."""

    request: RoutingRequest
    decision: Decision
    at_s: float


class FirstToken(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The first byte of the answer came: its prefill is done. `ttft_s` counts from the dispatch to this worker.

    `status` is the HTTP status of the answer, which may be an error that is handed on.
    """

    request_id: RequestId
    worker: WorkerId
    ttft_s: float
    at_s: float
    status: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed:
    """The worker did not answer this request; it may go to another one next. Undo what Dispatched booked.

    `code` is that of `router.errors`: it says whether the worker was busy, broken or gone.
    """

    request_id: RequestId
    worker: WorkerId
    at_s: float
    code: str | None = None


class Finished(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The request ended on this worker, well or not; `outcome.cached_tokens` is the worker's own figure."""

    request_id: RequestId
    worker: WorkerId
    outcome: Outcome
    at_s: float


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


FleetEvent: TypeAlias = (
    WorkerJoined
    | WorkerLeft
    | WorkerChanged
    | CacheCleared
    | Dispatched
    | FirstToken
    | AttemptFailed
    | Finished
    | LoadReported
)
