"""How workers were weighed for a request (/explain) as tuples of msgpack's types, and back. Pure. Called by replica."""

from __future__ import annotations

from typing import Any

from router.processes.wire import as_decision, decision_row
from router.telemetry.recent_requests import Weighed, Weighing
from router.types import ArmName, Candidate, RequestId, WorkerId

WEIGHED = 100
"""Beside the kinds of wire."""


def told(request_id: RequestId, weighing: Weighing) -> tuple[Any, ...]:
    """A weighing as a tuple; its kind comes first."""
    workers = [
        (
            each.worker,
            each.in_flight,
            each.waiting,
            None if each.candidate is None else (each.candidate.match_tokens, each.candidate.terms_s),
        )
        for each in weighing.workers
    ]
    return (WEIGHED, request_id, weighing.policy, weighing.arm, decision_row(weighing.decision), workers)


def heard(row: list[Any]) -> tuple[RequestId, Weighing]:
    """What `told` made a tuple of."""
    _, request_id, policy, arm, decision, workers = row
    weighed = tuple(
        Weighed(worker=WorkerId(name), in_flight=in_flight, waiting=waiting, candidate=_candidate(name, candidate))
        for name, in_flight, waiting, candidate in workers
    )
    return RequestId(request_id), Weighing(
        policy=policy, arm=None if arm is None else ArmName(arm), decision=as_decision(decision), workers=weighed
    )


def _candidate(name: str, row: list[Any] | None) -> Candidate | None:
    if row is None:
        return None
    terms_s = tuple((term, value) for term, value in row[1])
    return Candidate(worker=WorkerId(name), match_tokens=row[0], terms_s=terms_s)
