"""What one process tells another of a request is what the other hears, field by field."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, cast

import msgspec

from outcomes import key
from router.processes import rows, wire
from router.records import Decision, Dispatched, Finished, FirstToken, Outcome, RoutingRequest
from router.telemetry.recent_requests import Entry
from router.telemetry.weighing import Weighed, Weighing
from router.types import ArmName, Candidate, Reason, RequestId, TraceContext, WorkerId

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


def heard(row: rows.Row) -> list[Any]:
    [found] = wire.decode(wire.encode(wire.Batch(events=[row], names=[], flight={}))).events
    return cast("list[Any]", found)


def test_the_example_fills_every_field() -> None:
    for record in (REQUEST, DECISION, OUTCOME):
        assert [each.name for each in fields(record) if not getattr(record, each.name)] == []


def test_a_request_that_was_sent_is_heard_whole() -> None:
    event = Dispatched(request=REQUEST, decision=DECISION, at_s=2.0)

    names = rows.Names()
    row = heard(rows.sent(1, event, names, on_trial=False))
    known = rows.names_of(names.told)

    assert rows.dispatched_of(row, known) == event
    assert rows.sent(2, event, names, on_trial=False)[4] == row[4]
    assert len(names.told) == len(known) == 5  # told once


def test_a_first_token_is_heard_whole() -> None:
    event = FirstToken(request_id=RequestId("r1"), worker=WORKER, ttft_s=1.0, at_s=2.0, status=503)

    assert rows.first_token_of(heard(rows.began(1, event)), REQUEST, DECISION) == event


def test_of_what_ended_all_is_heard_that_policies_and_judges_read() -> None:
    outcome = replace(OUTCOME, max_output_tokens=REQUEST.max_output_tokens)
    event = Finished(request_id=RequestId("r1"), worker=WORKER, outcome=outcome, at_s=3.0)
    found = rows.finished_of(heard(rows.ended(1, event)), REQUEST, DECISION)
    unknown = {"policy", "arm", "spilled", "decision_s", "attempts", "trace"}

    assert replace(found, outcome=outcome) == event
    for each in fields(outcome):
        if each.name not in unknown:
            assert getattr(found.outcome, each.name) == getattr(outcome, each.name), each.name


def test_an_outcome_can_be_heard_whole() -> None:
    [told] = wire.outcomes(wire.encode([wire.Ended.of(OUTCOME)]))

    assert told.whole() == OUTCOME


def test_a_recent_request_is_lent_as_it_was_kept() -> None:
    entry = Entry(RequestId("r1"))
    entry.outcome = OUTCOME
    weighed = Weighed(worker=WORKER, in_flight=1, waiting=2, candidate=Candidate(worker=WORKER, match_tokens=3.0))
    entry.weighings = (Weighing(policy="p", arm=None, decision=DECISION, workers=(weighed,)),)
    [kept] = wire.kept(msgspec.msgpack.decode(wire.encode([wire.Kept.of(entry)])))
    found = kept.entry()

    assert (found.request_id, found.weighings, found.outcome) == ("r1", entry.weighings, OUTCOME)
