"""Fleet events and outcomes as tuples of msgpack's types, and back. Pure. Called by replica.

Records are taken field by field in the order of their definition: all processes of a router run the same version. An
outcome repeats neither the request nor the decision that its Dispatched told: the reader has them (`Known`). Times are
those of the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

from router.types import (
    AttemptFailed,
    CacheCleared,
    Decision,
    Dispatched,
    FirstToken,
    LoadReport,
    LoadReported,
    Outcome,
    PromptKey,
    Reason,
    RoutingRequest,
)

DISPATCHED, FIRST_TOKEN, FAILED, ENDED, LOAD, CLEARED = range(6)
Told = Dispatched | FirstToken | AttemptFailed | LoadReported | CacheCleared
REASONS: Mapping[str, Reason] = {reason.value: reason for reason in Reason}
Known = tuple[RoutingRequest, Decision]
"""What was told of a request when it was last dispatched."""
Row = tuple[Any, ...]


def _fields(kind: type[Any], *but: str) -> tuple[tuple[str, ...], Callable[[Any], Row]]:
    """The fields of a Struct less some, and what reads them all at once."""
    names = tuple(name for name in kind.__struct_fields__ if name not in but)
    return names, attrgetter(*names)


KEY_FIELDS, _key_row = _fields(PromptKey)
REQUEST_FIELDS, _request_row = _fields(RoutingRequest, "key")
DECISION_FIELDS, _decision_row = _fields(Decision, "reason")
OUTCOME_FIELDS, _outcome_row = _fields(Outcome, "key", "decision", "trace")
TOKEN_FIELDS, _token_row = _fields(FirstToken)


def told(event: Told, *, on_trial: bool = False) -> Row:
    """An event as a tuple; its kind comes first."""
    match event:
        case Dispatched():
            request = event.request
            return (
                DISPATCHED, _request_row(request), _key_row(request.key), decision_row(event.decision), event.at_s,
                on_trial,
            )  # fmt: skip
        case FirstToken():
            return (FIRST_TOKEN, _token_row(event))
        case AttemptFailed():
            return (FAILED, event.request_id, event.worker, event.at_s, event.code)
        case LoadReported():
            return (LOAD, event.worker, event.load, event.at_s)
        case CacheCleared():
            return (CLEARED, event.worker, event.at_s)


def heard(row: list[Any]) -> Told:
    """The event of a tuple that `told` made. Raises ValueError for none of them."""
    kind = row[0]
    if kind == DISPATCHED:
        return Dispatched(request=_as_request(row[1], row[2]), decision=as_decision(row[3]), at_s=row[4])
    if kind == FIRST_TOKEN:
        return FirstToken(**dict(zip(TOKEN_FIELDS, row[1], strict=True)))
    if kind == FAILED:
        return AttemptFailed(request_id=row[1], worker=row[2], at_s=row[3], code=row[4])
    if kind == LOAD:
        return LoadReported(worker=row[1], load=LoadReport(**row[2]), at_s=row[3])
    if kind == CLEARED:
        return CacheCleared(worker=row[1], at_s=row[2])
    raise ValueError(f"an event of kind {kind!r}")


def is_on_trial(row: list[Any]) -> bool:
    """Whether the Dispatched of this tuple was a trial of its worker."""
    return bool(row[5])


def ended(outcome: Outcome, finished_s: float | None, *, known: bool) -> Row:
    """An outcome; `finished_s` is when its worker was done, if it had one; `known`: its request was told before."""
    key, decision = outcome.key, outcome.decision
    return (
        ENDED,
        outcome.request_id,
        finished_s,
        known,
        None if known or key is None else _key_row(key),
        None if known or decision is None else decision_row(decision),
        _outcome_row(outcome),
    )


def as_outcome(row: list[Any], known: Known | None) -> Outcome:
    """The outcome of a tuple that `ended` made. What it left out comes from `known`; without that it is unknown."""
    key = None if row[4] is None else PromptKey(**dict(zip(KEY_FIELDS, row[4], strict=True)))
    decision = None if row[5] is None else as_decision(row[5])
    if row[3] and known is not None:
        key, decision = known[0].key, known[1]
    return Outcome(key=key, decision=decision, **dict(zip(OUTCOME_FIELDS, row[6], strict=True)))


def decision_row(decision: Decision) -> Row:
    """A decision as a tuple; its reason comes first."""
    return (decision.reason._value_, *_decision_row(decision))


def as_decision(row: list[Any]) -> Decision:
    """What `decision_row` made a tuple of."""
    return Decision(reason=REASONS[row[0]], **dict(zip(DECISION_FIELDS, row[1:], strict=True)))


def _as_request(row: list[Any], key: list[Any]) -> RoutingRequest:
    return RoutingRequest(
        key=PromptKey(**dict(zip(KEY_FIELDS, key, strict=True))), **dict(zip(REQUEST_FIELDS, row, strict=True))
    )
