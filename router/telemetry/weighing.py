"""How workers were weighed for one decision, as /explain shows it. Made by request.explain, kept by recent_requests."""

from __future__ import annotations

import msgspec

from router.records import Decision
from router.types import ArmName, Candidate, WorkerId


class Weighed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One worker as it was when the decision was made. `candidate` is None where the policy weighs nothing."""

    worker: WorkerId
    in_flight: int
    waiting: int | None
    candidate: Candidate | None


class Weighing(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One decision and every worker that could have been chosen."""

    policy: str
    arm: ArmName | None
    decision: Decision
    workers: tuple[Weighed, ...]
