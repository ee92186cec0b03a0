"""What processes of one router tell each other of requests: records that msgspec packs and builds in C.

All processes run the same version, so nothing here has to be understood by another. An outcome repeats neither the
request nor the decision that its Dispatched told. Times are those of the machine's monotonic clock, which all share.
Of what every request makes the plain fields go as a row (rows). Written and read by replica and elsewhere.
"""

from __future__ import annotations

from typing import Any

import msgspec

from router.processes import rows
from router.processes.rows import Row
from router.records import Decision, Dispatched, FirstToken, Outcome
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

Decided = tuple[Reason, Row]


def decided(decision: Decision) -> Decided:
    return decision.reason, rows.decision_row(decision)


def decision_of(told: Decided) -> Decision:
    return rows.decision_of(told[1], told[0])


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
        return cls(rows.request_row(request), request.key, decided(event.decision), event.at_s, on_trial)

    def event(self) -> Dispatched:
        request = rows.request_of(self.request, self.key)
        return Dispatched(request=request, decision=decision_of(self.decision), at_s=self.at_s)


class Began(msgspec.Struct, array_like=True, tag=1, frozen=True, gc=False):
    first_token: Row

    @classmethod
    def of(cls, event: FirstToken) -> Began:
        return cls(rows.first_token_row(event))

    def event(self) -> FirstToken:
        return rows.first_token_of(self.first_token)


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
        name, row, trace, decision = outcome.request_id, rows.outcome_row(outcome), outcome.trace, outcome.decision
        if known or decision is None:
            return cls(name, row, trace, finished_s, known, None if known else outcome.key)
        return cls(name, row, trace, finished_s, known, outcome.key, decided(decision))

    def whole(self, sent: tuple[PromptKey, Decision] | None) -> Outcome:
        """The outcome. `sent`: key and decision of its last Sent, where that is still known."""
        key, decision = self.key, None if self.decision is None else decision_of(self.decision)
        if self.known and sent is not None:
            key, decision = sent
        return rows.outcome_of(self.outcome, self.request_id, key, decision, self.trace)


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
