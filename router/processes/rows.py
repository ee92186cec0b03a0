"""Rows of what every request makes: a record's plain fields in their order, which msgpack has, and the record again.

msgspec cannot build compiled records (router.records). What is not plain is told beside the row. Compiled, because
every process does this for every request of all others. Called by wire.
"""

from __future__ import annotations

from typing import Any

from router.records import Decision, FirstToken, Outcome, RoutingRequest
from router.types import PromptKey, Reason, RequestId, TraceContext

Row = tuple[Any, ...]


def request_row(request: RoutingRequest) -> Row:
    return (
        request.request_id, request.endpoint, request.at_s, request.model, request.session, request.client,
        request.stream, request.max_output_tokens, request.known_match_tokens, request.known_prompt_tokens,
    )  # fmt: skip


def request_of(row: Row, key: PromptKey) -> RoutingRequest:
    (
        request_id, endpoint, at_s, model, session, client, stream, max_output_tokens, known_match_tokens,
        known_prompt_tokens,
    ) = row  # fmt: skip
    return RoutingRequest(
        request_id=request_id, endpoint=endpoint, key=key, at_s=at_s, model=model, session=session, client=client,
        stream=stream, max_output_tokens=max_output_tokens, known_match_tokens=known_match_tokens,
        known_prompt_tokens=known_prompt_tokens,
    )  # fmt: skip


def decision_row(decision: Decision) -> Row:
    return (
        decision.worker, decision.match_tokens, decision.match_blocks, decision.expected_ttft_s,
        decision.expected_wait_s, decision.hold,
    )  # fmt: skip


def decision_of(row: Row, reason: Reason) -> Decision:
    worker, match_tokens, match_blocks, expected_ttft_s, expected_wait_s, hold = row
    return Decision(
        worker=worker, reason=reason, match_tokens=match_tokens, match_blocks=match_blocks,
        expected_ttft_s=expected_ttft_s, expected_wait_s=expected_wait_s, hold=hold,
    )  # fmt: skip


def first_token_row(first_token: FirstToken) -> Row:
    return (
        first_token.request_id, first_token.worker, first_token.ttft_s, first_token.at_s, first_token.status,
    )  # fmt: skip


def first_token_of(row: Row) -> FirstToken:
    (
        request_id, worker, ttft_s, at_s, status,
    ) = row  # fmt: skip
    return FirstToken(
        request_id=request_id, worker=worker, ttft_s=ttft_s, at_s=at_s, status=status,
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
