"""What one process tells another of a request is what the other hears, field by field."""

from __future__ import annotations

from dataclasses import fields
from typing import cast

from outcomes import key
from router.processes import wire
from router.records import Decision, Dispatched, FirstToken, Outcome, RoutingRequest
from router.types import ArmName, Reason, RequestId, TraceContext, WorkerId

WORKER = WorkerId("w1")
DECISION = Decision(
    worker=WORKER, reason=Reason.PREFIX, match_tokens=1.0, match_blocks=2, expected_ttft_s=3.0, expected_wait_s=4.0,
    hold=True,
)  # fmt: skip
REQUEST = RoutingRequest(
    request_id=RequestId("r1"), endpoint="/generate", key=key(1, 2), at_s=1.0, model="m", session="s", client="c",
    stream=True, max_output_tokens=5, known_match_tokens={WORKER: 6}, known_prompt_tokens=7,
)  # fmt: skip
OUTCOME = Outcome(
    request_id=RequestId("r1"), endpoint="/generate", at_s=1.0, status=200, e2e_s=2.0, policy="p", arm=ArmName("a"),
    spilled=True, model="m", session="s", client="c", max_output_tokens=3, decision=DECISION, decision_s=4.0,
    held_s=5.0, attempts=6, stream=True, error="e", client_gone=True, ttft_s=7.0, itl_mean_s=8.0, events=9,
    key=key(1, 2), prompt_tokens=10, cached_tokens=11, completion_tokens=12,
    trace=TraceContext(trace_id="t", span_id="i", parent_id=None),
)  # fmt: skip


def heard(told: wire.Told) -> wire.Told:
    (found,) = wire.decode(wire.encode(wire.Batch(events=[told], flight={}))).events
    return found


def test_the_example_fills_every_field() -> None:
    for record in (REQUEST, DECISION, OUTCOME):
        assert [each.name for each in fields(record) if not getattr(record, each.name)] == []


def test_a_request_that_was_sent_is_heard_whole() -> None:
    event = Dispatched(request=REQUEST, decision=DECISION, at_s=2.0)

    assert cast("wire.Sent", heard(wire.Sent.of(event, on_trial=False))).event() == event


def test_a_first_token_is_heard_whole() -> None:
    event = FirstToken(request_id=RequestId("r1"), worker=WORKER, ttft_s=1.0, at_s=2.0, status=503)

    assert cast("wire.Began", heard(wire.Began.of(event))).event() == event


def test_an_outcome_is_heard_whole_though_it_does_not_repeat_what_was_sent() -> None:
    alone = cast("wire.Ended", heard(wire.Ended.of(OUTCOME, 3.0, known=False)))
    after = cast("wire.Ended", heard(wire.Ended.of(OUTCOME, 3.0, known=True)))

    assert alone.whole(None) == OUTCOME
    assert after.whole((REQUEST.key, DECISION)) == OUTCOME
    assert after.decision is None
