"""What processes of one router tell each other: records that msgspec packs and builds in C.

All processes run the same version, so nothing here has to be understood by another. Times are those of the machine's
monotonic clock, which all share. The events of every request go as rows (rows); outcomes whole, and how workers were
weighed, only where somebody wants them: the decision log, an experiment, whoever asks for recent requests. Written and
read by replica.
"""

from __future__ import annotations

from typing import Any

import msgspec

from router.processes import rows
from router.processes.rows import Row
from router.records import Outcome
from router.telemetry.recent_requests import Entry
from router.telemetry.weighing import Weighed, Weighing
from router.types import ArmName, PromptKey, RequestId, TraceContext, WorkerId


class Ended(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An outcome, whole."""

    request_id: RequestId
    outcome: Row
    trace: TraceContext | None
    key: PromptKey | None
    decision: Row | None

    @classmethod
    def of(cls, outcome: Outcome) -> Ended:
        decision = None if outcome.decision is None else rows.decision_row(outcome.decision)
        return cls(outcome.request_id, rows.outcome_row(outcome), outcome.trace, outcome.key, decision)

    def whole(self) -> Outcome:
        decision = None if self.decision is None else rows.decision_of(self.decision)
        return rows.outcome_of(self.outcome, self.request_id, self.key, decision, self.trace)


class Explained(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How workers were weighed, for /explain."""

    policy: str
    arm: ArmName | None
    decision: Row
    workers: tuple[Weighed, ...]

    @classmethod
    def of(cls, weighing: Weighing) -> Explained:
        return cls(weighing.policy, weighing.arm, rows.decision_row(weighing.decision), weighing.workers)

    def weighing(self) -> Weighing:
        return Weighing(
            policy=self.policy, arm=self.arm, decision=rows.decision_of(self.decision), workers=self.workers
        )


class Kept(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A recent request."""

    request_id: RequestId
    weighings: tuple[Explained, ...]
    ended: Ended | None

    @classmethod
    def of(cls, entry: Entry) -> Kept:
        outcome = entry.outcome
        return cls(
            entry.request_id, tuple(Explained.of(each) for each in entry.weighings),
            None if outcome is None else Ended.of(outcome),
        )  # fmt: skip

    def entry(self) -> Entry:
        entry = Entry(self.request_id)
        entry.weighings = tuple(each.weighing() for each in self.weighings)
        entry.outcome = None if self.ended is None else self.ended.whole()
        return entry


class Batch(msgspec.Struct, array_like=True, frozen=True):
    """What one process tells at once; None where there is nothing to say.

    `events` are rows, `names` words in them. `flight` is (requests in flight, when it last sent bytes, until when it
    wants no more) by worker. `limits` is what SharedAdmission tells, `addresses` connections by address, `open` the
    numbers of requests that have not ended. `members` and `rows` are the leader's table of workers. `figures`: what is
    counted and shown. `outcomes` are packed `Ended`s, which only those unpack who want them.
    """

    events: list[Any]
    names: list[str | None]
    flight: dict[str, tuple[int, float, float]]
    limits: tuple[int, int, dict[str, int], dict[str, tuple[int, float]]] | None = None
    addresses: dict[str, int] | None = None
    open: list[int] | None = None
    rows: list[Any] | None = None
    members: list[WorkerId] | None = None
    figures: Any = None
    outcomes: bytes | None = None

    def says_nothing(self) -> bool:
        rest = (self.limits, self.addresses, self.open, self.rows, self.figures, self.outcomes)
        return not self.events and not self.flight and all(each is None for each in rest)


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Batch).decode
outcomes = msgspec.msgpack.Decoder(list[Ended]).decode


def kept(found: Any) -> list[Kept]:
    """What another process answered when it was asked for recent requests."""
    return msgspec.convert(found, list[Kept])
