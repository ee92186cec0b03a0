"""What processes of one router tell each other of requests: records that msgspec packs and builds in C.

All processes run the same version, so nothing here has to be understood by another. An outcome repeats neither the
request nor the decision that its Dispatched told. Times are those of the machine's monotonic clock, which all share.
Of what every request makes (router.records, which msgspec cannot build) the plain fields go as a row, in their order.
Written and read by replica and elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from router.records import Decision, Dispatched, FirstToken, Outcome, RoutingRequest
from router.telemetry.weighing import Weighed, Weighing
from router.types import (
    ArmName,
    AttemptFailed,
    CacheCleared,
    LoadReported,
    PromptKey,
    Reason,
    RequestId,
    TraceContext,
    WorkerId,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R", bound="DataclassInstance")
Row = tuple[Any, ...]


class Plain(Generic[R]):
    """Rows of one kind of record; the fields in `apart`, which msgpack does not have, are told beside them."""

    def __init__(self, kind: type[R], *apart: str) -> None:
        self._kind: Callable[..., R] = kind
        self._names = [each.name for each in fields(kind) if each.name not in apart]
        self._values = attrgetter(*self._names)

    def row(self, record: R) -> Row:
        values: Row = self._values(record)
        return values

    def record(self, row: Row, **apart: object) -> R:
        """What `row` was made of."""
        return self._kind(**dict(zip(self._names, row, strict=True)), **apart)


REQUESTS = Plain(RoutingRequest, "key")
DECISIONS = Plain(Decision, "reason")
OUTCOMES = Plain(Outcome, "request_id", "key", "decision", "trace")
FIRST_TOKENS = Plain(FirstToken)
Decided = tuple[Reason, Row]


def decided(decision: Decision) -> Decided:
    return decision.reason, DECISIONS.row(decision)


def decision_of(told: Decided) -> Decision:
    return DECISIONS.record(told[1], reason=told[0])


class Sent(msgspec.Struct, array_like=True, tag=0, frozen=True, gc=False):
    """A request went to a worker, maybe as its trial."""

    request: Row
    key: PromptKey
    decision: Decided
    at_s: float
    on_trial: bool

    @classmethod
    def of(cls, event: Dispatched, *, on_trial: bool) -> Sent:
        request = event.request
        return cls(REQUESTS.row(request), request.key, decided(event.decision), event.at_s, on_trial)

    def event(self) -> Dispatched:
        request = REQUESTS.record(self.request, key=self.key)
        return Dispatched(request=request, decision=decision_of(self.decision), at_s=self.at_s)


class Began(msgspec.Struct, array_like=True, tag=1, frozen=True, gc=False):
    first_token: Row

    @classmethod
    def of(cls, event: FirstToken) -> Began:
        return cls(FIRST_TOKENS.row(event))

    def event(self) -> FirstToken:
        return FIRST_TOKENS.record(self.first_token)


class Failed(msgspec.Struct, array_like=True, tag=2, frozen=True, gc=False):
    event: AttemptFailed


class Reported(msgspec.Struct, array_like=True, tag=3, frozen=True, gc=False):
    event: LoadReported


class Cleared(msgspec.Struct, array_like=True, tag=4, frozen=True, gc=False):
    event: CacheCleared


class Ended(msgspec.Struct, array_like=True, tag=5, frozen=True, gc=False):
    """`finished_s`: when its worker was done, if it had one. `known`: key and decision are those of its last Sent, and
    not told again."""

    request_id: RequestId
    outcome: Row
    trace: TraceContext | None
    finished_s: float | None
    known: bool
    key: PromptKey | None = None
    decision: Decided | None = None

    @classmethod
    def of(cls, outcome: Outcome, finished_s: float | None, *, known: bool) -> Ended:
        name, row, trace, decision = outcome.request_id, OUTCOMES.row(outcome), outcome.trace, outcome.decision
        if known or decision is None:
            return cls(name, row, trace, finished_s, known, None if known else outcome.key)
        return cls(name, row, trace, finished_s, known, outcome.key, decided(decision))

    def whole(self, sent: tuple[PromptKey, Decision] | None) -> Outcome:
        """The outcome. `sent`: key and decision of its last Sent, where that is still known."""
        key, decision = self.key, None if self.decision is None else decision_of(self.decision)
        if self.known and sent is not None:
            key, decision = sent
        return OUTCOMES.record(
            self.outcome, request_id=self.request_id, key=key, decision=decision, trace=self.trace
        )


class Explained(msgspec.Struct, array_like=True, tag=6, frozen=True, gc=False):
    """How workers were weighed, for /explain."""

    request_id: RequestId
    policy: str
    arm: ArmName | None
    decision: Decided
    workers: tuple[Weighed, ...]

    @classmethod
    def of(cls, request_id: RequestId, weighing: Weighing) -> Explained:
        return cls(request_id, weighing.policy, weighing.arm, decided(weighing.decision), weighing.workers)

    def weighing(self) -> Weighing:
        return Weighing(
            policy=self.policy, arm=self.arm, decision=decision_of(self.decision), workers=self.workers
        )


Told = Sent | Began | Failed | Reported | Cleared | Ended | Explained


class Batch(msgspec.Struct, array_like=True, frozen=True):
    """What one process tells at once; None where there is nothing to say.

    `flight` is (requests in flight, when it last sent bytes, until when it wants no more) by worker. `limits` is what
    SharedAdmission tells, `addresses` connections by address, `open` the ids of requests that have not ended.
    `members` and `rows` are the leader's table of workers. `figures`: counters, queue and held requests.
    """

    events: list[Told]
    flight: dict[str, tuple[int, float, float]]
    limits: tuple[int, int, dict[str, int], dict[str, tuple[int, float]]] | None = None
    addresses: dict[str, int] | None = None
    open: list[str] | None = None
    rows: list[Any] | None = None
    members: list[WorkerId] | None = None
    figures: Any = None

    def says_nothing(self) -> bool:
        rest = (self.limits, self.addresses, self.open, self.rows, self.figures)
        return not self.events and not self.flight and all(each is None for each in rest)


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Batch).decode
