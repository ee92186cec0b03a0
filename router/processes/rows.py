"""Rows: what every request makes, as lists of plain values, which msgpack has, and the records again.

Of a request's life goes to every process what policies and judges of workers learn from (`sent`, `began`, `ended`), and
an outcome whole only to those who ask for it (wire). msgspec cannot build compiled records (router.records). Compiled,
because every process does this for every request of all others. Called by teller, elsewhere and wire.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from router.records import Decision, Dispatched, Finished, FirstToken, Outcome, RoutingRequest
from router.types import PromptKey, Reason, RequestId, TraceContext

Row = tuple[Any, ...]
"""As it is told; heard, it is a list."""

SENT: Final = 0
"""A request went to a worker, maybe as its trial."""
BEGAN: Final = 1
"""Its first token came."""
ENDED: Final = 2
FAILED: Final = 3
"""A worker did not answer it."""
OVER: Final = 4
"""It ended, and not on a worker."""
REPORTED: Final = 5
CLEARED: Final = 6

_REASONS: Final = {reason.value: reason for reason in Reason}


class Names:
    """Words that many requests share, told once a batch: rows hold their places."""

    def __init__(self) -> None:
        self.told: list[str | None] = []
        self._places: dict[str | None, int] = {}

    def place(self, name: str | None) -> int:
        place = self._places.get(name)
        if place is None:
            place = self._places[name] = len(self.told)
            self.told.append(name)
        return place


def names_of(told: list[Any]) -> list[str | None]:
    """What was heard of them: of equal ones always the same object, which dicts find sooner."""
    return [None if name is None else sys.intern(name) for name in told]


def sent(number: int, event: Dispatched, names: Names, *, on_trial: bool) -> Row:
    """`number` names the request in what follows of it."""
    request, decision = event.request, event.decision
    key = request.key
    return (
        SENT, number, on_trial, event.at_s,
        names.place(decision.worker), names.place(decision.reason._value_), decision.match_tokens,
        decision.match_blocks, decision.expected_ttft_s, decision.expected_wait_s, decision.hold,
        request.request_id, names.place(request.endpoint), request.at_s, names.place(request.model), request.session,
        names.place(request.client), request.stream, request.max_output_tokens, request.known_match_tokens,
        request.known_prompt_tokens, key.blocks, key.unit_tokens, key.prompt_tokens,
    )  # fmt: skip


def dispatched_of(row: list[Any], names: list[Any]) -> Dispatched:
    """What `sent` was told of."""
    (
        _, _, _, sent_s,
        worker, reason, match_tokens, match_blocks, expected_ttft_s, expected_wait_s, hold,
        request_id, endpoint, at_s, model, session, client, stream, max_output_tokens, known_match_tokens,
        known_prompt_tokens, blocks, unit_tokens, prompt_tokens,
    ) = row  # fmt: skip
    key = PromptKey(blocks=blocks, unit_tokens=unit_tokens, prompt_tokens=prompt_tokens)
    request = RoutingRequest(
        request_id=request_id, endpoint=names[endpoint], key=key, at_s=at_s, model=names[model], session=session,
        client=names[client], stream=stream, max_output_tokens=max_output_tokens,
        known_match_tokens=known_match_tokens, known_prompt_tokens=known_prompt_tokens,
    )  # fmt: skip
    decision = Decision(
        worker=names[worker], reason=_REASONS[names[reason]], match_tokens=match_tokens, match_blocks=match_blocks,
        expected_ttft_s=expected_ttft_s, expected_wait_s=expected_wait_s, hold=hold,
    )  # fmt: skip
    return Dispatched(request=request, decision=decision, at_s=sent_s)


def began(number: int, event: FirstToken) -> Row:
    return BEGAN, number, event.ttft_s, event.at_s, event.status


def first_token_of(row: list[Any], request: RoutingRequest, decision: Decision) -> FirstToken:
    _, _, ttft_s, at_s, status = row
    return FirstToken(
        request_id=request.request_id, worker=decision.worker, ttft_s=ttft_s, at_s=at_s, status=status
    )


def ended(number: int, event: Finished) -> Row:
    """Of its outcome only what says something of its worker."""
    one = event.outcome
    return (
        ENDED, number, event.at_s, one.at_s, one.status, one.error, one.client_gone, one.ttft_s, one.held_s,
        one.itl_mean_s, one.events, one.prompt_tokens, one.cached_tokens, one.completion_tokens,
    )  # fmt: skip


def finished_of(row: list[Any], request: RoutingRequest, decision: Decision) -> Finished:
    """What `ended` was told of; `request` and `decision` are those it was last sent with."""
    (
        _, _, ended_s, at_s, status, error, client_gone, ttft_s, held_s, itl_mean_s, events, prompt_tokens,
        cached_tokens, completion_tokens,
    ) = row  # fmt: skip
    outcome = Outcome(
        request_id=request.request_id, endpoint=request.endpoint, at_s=at_s, status=status, e2e_s=ended_s - at_s,
        model=request.model, session=request.session, client=request.client,
        max_output_tokens=request.max_output_tokens, decision=decision, held_s=held_s, attempts=1,
        stream=request.stream, error=error, client_gone=client_gone, ttft_s=ttft_s, itl_mean_s=itl_mean_s,
        events=events, key=request.key, prompt_tokens=prompt_tokens, cached_tokens=cached_tokens,
        completion_tokens=completion_tokens,
    )  # fmt: skip
    return Finished(request_id=request.request_id, worker=decision.worker, outcome=outcome, at_s=ended_s)


# -- outcomes whole -----------------------------------------------------------------------------------------------


def decision_row(decision: Decision) -> Row:
    return (
        decision.worker, decision.reason.value, decision.match_tokens, decision.match_blocks,
        decision.expected_ttft_s, decision.expected_wait_s, decision.hold,
    )  # fmt: skip


def decision_of(row: Row) -> Decision:
    worker, reason, match_tokens, match_blocks, expected_ttft_s, expected_wait_s, hold = row
    return Decision(
        worker=worker, reason=_REASONS[reason], match_tokens=match_tokens, match_blocks=match_blocks,
        expected_ttft_s=expected_ttft_s, expected_wait_s=expected_wait_s, hold=hold,
    )  # fmt: skip


def outcome_row(outcome: Outcome) -> Row:
    return (
        outcome.endpoint, outcome.at_s, outcome.status, outcome.e2e_s, outcome.policy, outcome.arm, outcome.spilled,
        outcome.model, outcome.session, outcome.client, outcome.max_output_tokens, outcome.decision_s, outcome.held_s,
        outcome.attempts, outcome.stream, outcome.error, outcome.client_gone, outcome.ttft_s, outcome.itl_mean_s,
        outcome.events, outcome.prompt_tokens, outcome.cached_tokens, outcome.completion_tokens,
    )  # fmt: skip


def outcome_of(
    row: Row, request_id: RequestId, key: PromptKey | None, decision: Decision | None, trace: TraceContext | None
) -> Outcome:
    (
        endpoint, at_s, status, e2e_s, policy, arm, spilled, model, session, client, max_output_tokens, decision_s,
        held_s, attempts, stream, error, client_gone, ttft_s, itl_mean_s, events, prompt_tokens, cached_tokens,
        completion_tokens,
    ) = row  # fmt: skip
    return Outcome(
        request_id=request_id, endpoint=endpoint, at_s=at_s, status=status, e2e_s=e2e_s, policy=policy, arm=arm,
        spilled=spilled, model=model, session=session, client=client, max_output_tokens=max_output_tokens,
        decision=decision, decision_s=decision_s, held_s=held_s, attempts=attempts, stream=stream, error=error,
        client_gone=client_gone, ttft_s=ttft_s, itl_mean_s=itl_mean_s, events=events, key=key,
        prompt_tokens=prompt_tokens, cached_tokens=cached_tokens, completion_tokens=completion_tokens, trace=trace,
    )  # fmt: skip
