"""What every request makes on its way: what it is to a policy, the decision, the events, and the outcome of it all.

Compiled (CONTRIBUTING.md), so that the other compiled modules read a field as machine code does. Hence the form: a
record whose fields are `Final`, which mypy enforces everywhere and compiled code at run time too, with its constructor
written out. msgspec cannot build them; who sends one elsewhere says how (processes.rows). Imports only types.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from router.compiled import mypyc_attr
from router.types import (
    ArmName,
    AttemptFailed,
    CacheCleared,
    LoadReported,
    PromptKey,
    Reason,
    RequestId,
    TraceContext,
    WorkerChanged,
    WorkerId,
    WorkerJoined,
    WorkerLeft,
)


@mypyc_attr(acyclic=True)
@dataclass(init=False, slots=True, kw_only=True)
class RoutingRequest:
    """All that a policy may know of one request. Immutable; the same object is shown to shadows and replay.

    `at_s` is when it is decided, on the clock of the events' `at_s`: a policy has no other clock. That is when it
    arrived, or later where it was held at the router. `known_match_tokens` is how many leading prompt tokens workers
    hold by their own KV events (exact mode); of a worker that is not in it nothing is known, and the policy's own index
    counts. `known_prompt_tokens` is the prompt's true size then; `key` stays what it is without exact mode, so that
    what is learned of keys holds in both.
    """

    request_id: Final[RequestId]
    endpoint: Final[str]
    key: Final[PromptKey]
    at_s: Final[float]
    model: Final[str | None]
    session: Final[str | None]
    client: Final[str | None]
    stream: Final[bool]
    max_output_tokens: Final[int | None]
    known_match_tokens: Final[Mapping[WorkerId, int] | None]
    known_prompt_tokens: Final[int | None]

    def __init__(
        self,
        *,
        request_id: RequestId,
        endpoint: str,
        key: PromptKey,
        at_s: float = 0.0,
        model: str | None = None,
        session: str | None = None,
        client: str | None = None,
        stream: bool = False,
        max_output_tokens: int | None = None,
        known_match_tokens: Mapping[WorkerId, int] | None = None,
        known_prompt_tokens: int | None = None,
    ) -> None:
        self.request_id = request_id
        self.endpoint = endpoint
        self.key = key
        self.at_s = at_s
        self.model = model
        self.session = session
        self.client = client
        self.stream = stream
        self.max_output_tokens = max_output_tokens
        self.known_match_tokens = known_match_tokens
        self.known_prompt_tokens = known_prompt_tokens


@mypyc_attr(acyclic=True)
@dataclass(init=False, slots=True, kw_only=True)
class Decision:
    """Where a request goes, why, and what the policy expects there.

    `match_tokens` is the prefix match it predicts on that worker (0 where it does not predict); `expected_ttft_s` is
    None for policies that do not predict time, and so is `expected_wait_s`, the part of it that is not the request's
    own prefill. `hold`: that wait is so long that the request is better held at the router and decided later.
    """

    worker: Final[WorkerId]
    reason: Final[Reason]
    match_tokens: Final[float]
    match_blocks: Final[int]
    expected_ttft_s: Final[float | None]
    expected_wait_s: Final[float | None]
    hold: Final[bool]

    def __init__(
        self,
        *,
        worker: WorkerId,
        reason: Reason,
        match_tokens: float = 0.0,
        match_blocks: int = 0,
        expected_ttft_s: float | None = None,
        expected_wait_s: float | None = None,
        hold: bool = False,
    ) -> None:
        self.worker = worker
        self.reason = reason
        self.match_tokens = match_tokens
        self.match_blocks = match_blocks
        self.expected_ttft_s = expected_ttft_s
        self.expected_wait_s = expected_wait_s
        self.hold = hold


@mypyc_attr(acyclic=True)
@dataclass(init=False, slots=True, kw_only=True)
class Outcome:
    """The one record of a request: metrics, logs, experiments and policies all read it and nothing else measures.

    Times are seconds on the monotonic clock, durations start when the request was dispatched (`at_s`). Token counts
    are the worker's own report and None where it gave none. `error` is an error code of `router.errors` or None.
    `worker` is None when no worker was ever chosen; `attempts` counts workers tried. `spilled`: it belonged to `arm`
    but had to leave that arm's workers, so it says nothing about the arm. `held_s` is how long it waited at the router
    because every worker's queue was long; `expected_ttft_s` of the decision counts from the end of that.
    """

    request_id: Final[RequestId]
    endpoint: Final[str]
    at_s: Final[float]
    status: Final[int]
    e2e_s: Final[float]
    policy: Final[str]
    arm: Final[ArmName | None]
    spilled: Final[bool]
    model: Final[str | None]
    session: Final[str | None]
    client: Final[str | None]
    max_output_tokens: Final[int | None]
    decision: Final[Decision | None]
    decision_s: Final[float]
    held_s: Final[float]
    attempts: Final[int]
    stream: Final[bool]
    error: Final[str | None]
    client_gone: Final[bool]
    ttft_s: Final[float | None]
    itl_mean_s: Final[float | None]
    events: Final[int]
    key: Final[PromptKey | None]
    prompt_tokens: Final[int | None]
    cached_tokens: Final[int | None]
    completion_tokens: Final[int | None]
    trace: Final[TraceContext | None]

    def __init__(
        self,
        *,
        request_id: RequestId,
        endpoint: str,
        at_s: float,
        status: int,
        e2e_s: float,
        policy: str = "",
        arm: ArmName | None = None,
        spilled: bool = False,
        model: str | None = None,
        session: str | None = None,
        client: str | None = None,
        max_output_tokens: int | None = None,
        decision: Decision | None = None,
        decision_s: float = 0.0,
        held_s: float = 0.0,
        attempts: int = 0,
        stream: bool = False,
        error: str | None = None,
        client_gone: bool = False,
        ttft_s: float | None = None,
        itl_mean_s: float | None = None,
        events: int = 0,
        key: PromptKey | None = None,
        prompt_tokens: int | None = None,
        cached_tokens: int | None = None,
        completion_tokens: int | None = None,
        trace: TraceContext | None = None,
    ) -> None:
        self.request_id = request_id
        self.endpoint = endpoint
        self.at_s = at_s
        self.status = status
        self.e2e_s = e2e_s
        self.policy = policy
        self.arm = arm
        self.spilled = spilled
        self.model = model
        self.session = session
        self.client = client
        self.max_output_tokens = max_output_tokens
        self.decision = decision
        self.decision_s = decision_s
        self.held_s = held_s
        self.attempts = attempts
        self.stream = stream
        self.error = error
        self.client_gone = client_gone
        self.ttft_s = ttft_s
        self.itl_mean_s = itl_mean_s
        self.events = events
        self.key = key
        self.prompt_tokens = prompt_tokens
        self.cached_tokens = cached_tokens
        self.completion_tokens = completion_tokens
        self.trace = trace

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


@mypyc_attr(acyclic=True)
@dataclass(init=False, slots=True, kw_only=True)
class Dispatched:
    """The request was sent: book its load and its prefix now, so that a burst spreads."""

    request: Final[RoutingRequest]
    decision: Final[Decision]
    at_s: Final[float]

    def __init__(
        self,
        *,
        request: RoutingRequest,
        decision: Decision,
        at_s: float,
    ) -> None:
        self.request = request
        self.decision = decision
        self.at_s = at_s


@mypyc_attr(acyclic=True)
@dataclass(init=False, slots=True, kw_only=True)
class FirstToken:
    """The first byte of the answer came: its prefill is done. `ttft_s` counts from the dispatch to this worker.

    `status` is the HTTP status of the answer, which may be an error that is handed on.
    """

    request_id: Final[RequestId]
    worker: Final[WorkerId]
    ttft_s: Final[float]
    at_s: Final[float]
    status: Final[int]

    def __init__(
        self,
        *,
        request_id: RequestId,
        worker: WorkerId,
        ttft_s: float,
        at_s: float,
        status: int = 200,
    ) -> None:
        self.request_id = request_id
        self.worker = worker
        self.ttft_s = ttft_s
        self.at_s = at_s
        self.status = status


@mypyc_attr(acyclic=True)
@dataclass(init=False, slots=True, kw_only=True)
class Finished:
    """The request ended on this worker, well or not; `outcome.cached_tokens` is the worker's own figure."""

    request_id: Final[RequestId]
    worker: Final[WorkerId]
    outcome: Final[Outcome]
    at_s: Final[float]

    def __init__(
        self,
        *,
        request_id: RequestId,
        worker: WorkerId,
        outcome: Outcome,
        at_s: float,
    ) -> None:
        self.request_id = request_id
        self.worker = worker
        self.outcome = outcome
        self.at_s = at_s


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
