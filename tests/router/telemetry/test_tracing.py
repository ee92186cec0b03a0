"""Traces: the client's is continued to the worker, spans go to the collector, and neither can hurt a request."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from outcomes import decision, outcome
from router.telemetry import tracing
from router.telemetry.tracing import Tracer, TracingConfig, parse_traceparent
from router.types import ArmName, TraceContext
from router_fakes import config, running, upstream

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{PARENT}-01"
OURS = TraceContext(trace_id=TRACE, span_id="b" * 16, parent_id=PARENT)


def tracer(**settings: Any) -> Tracer:
    made = TracingConfig(otlp_url="http://collector:4318", **settings)
    return Tracer(made, version="0.0", clock=lambda: 100.0, unix_s=lambda: 1_700_000_100.0)


@pytest.mark.parametrize(
    "header",
    [
        None, "", "nonsense", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01", f"00-{TRACE}-{PARENT}",
    ],
)  # fmt: skip
def test_a_header_that_the_standard_forbids_is_as_none(header: str | None) -> None:
    assert parse_traceparent(header) is None


def test_a_good_header_is_read_and_a_newer_version_too() -> None:
    assert parse_traceparent(GIVEN) == (TRACE, PARENT, True)
    assert parse_traceparent(f"00-{TRACE}-{PARENT}-00") == (TRACE, PARENT, False)
    assert parse_traceparent(f"cc-{TRACE}-{PARENT}-01-what-is-new") == (TRACE, PARENT, True)


def test_a_given_trace_goes_on_and_a_request_without_one_begins_one() -> None:
    ours = tracer()
    continued, begun = ours.begin({"traceparent": GIVEN}), ours.begin({})

    assert continued is not None
    assert (continued.trace_id, continued.parent_id) == (TRACE, PARENT)
    assert continued.span_id != PARENT
    assert begun is not None
    assert begun.parent_id is None
    assert parse_traceparent(tracing.traceparent(begun).decode()) == (begun.trace_id, begun.span_id, True)


def test_what_is_not_sampled_leaves_no_span() -> None:
    assert tracer().begin({"traceparent": f"00-{TRACE}-{PARENT}-00"}) is None
    rare = tracer(sample_ratio=0.25)
    assert 50 < sum(rare.begin({}) is not None for _ in range(400)) < 150
    assert tracer(sample_ratio=0.0).begin({}) is None


def test_a_span_says_when_where_and_why_in_otlps_words() -> None:
    ended = outcome(
        trace=OURS, at_s=90.0, status=504, error="worker_timeout", arm=ArmName("b"), decision=decision("w2")
    )
    sent = tracer().export([ended])
    json.dumps(sent)

    resource = sent["resourceSpans"][0]
    span = resource["scopeSpans"][0]["spans"][0]
    facts = {each["key"]: each["value"] for each in span["attributes"]}
    assert resource["resource"]["attributes"][0] == {"key": "service.name", "value": {"stringValue": "trieway"}}
    assert (span["traceId"], span["spanId"], span["parentSpanId"]) == (TRACE, "b" * 16, PARENT)
    assert (span["startTimeUnixNano"], span["endTimeUnixNano"]) == ("1700000090000000000", "1700000091500000000")
    assert span["events"] == [{"timeUnixNano": "1700000090250000000", "name": "first_token"}]
    assert span["status"] == {"code": 2, "message": "worker_timeout"}
    assert facts["trieway.worker"] == {"stringValue": "w2"}
    assert facts["http.response.status_code"] == {"intValue": "504"}
    assert facts["trieway.ttft_s"] == {"doubleValue": 0.25}
    assert "trieway.expected_ttft_s" not in facts


async def test_a_collector_that_fails_costs_spans_and_is_tried_again() -> None:
    statuses = iter([503, 200])
    seen: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url == "http://collector:4318/v1/traces"
        seen.append(len(json.loads(request.content)["resourceSpans"][0]["scopeSpans"][0]["spans"]))
        return httpx.Response(next(statuses))

    ours = tracer()
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        for number in range(2):
            ours.observe(outcome(f"r{number}", trace=OURS))
            ours.observe(outcome("not sampled"))
            await ours.send(client)

    assert seen == [1, 1]
    assert ours.dropped == 1


def test_spans_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "QUEUE_SPANS", 3)
    ours = tracer()
    for _ in range(5):
        ours.observe(outcome(trace=OURS))

    assert ours.dropped == 2


async def test_the_worker_sees_our_span_as_its_parent_and_the_collector_gets_it(
    monkeypatch: pytest.MonkeyPatch, chat: dict[str, Any]
) -> None:
    monkeypatch.setattr(tracing, "SEND_EVERY_S", 0.01)
    async with upstream() as worker, upstream() as collector:
        async with running(config(worker.url, tracing={"otlp_url": collector.url})) as router:
            headers = {"traceparent": GIVEN, "tracestate": "vendor=1"}
            await router.client.post("/v1/chat/completions", json=chat, headers=headers)
            await router.until(lambda _: bool(collector.calls))

    sent = json.loads(collector.calls[0].body)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    got = parse_traceparent(worker.calls[0].header("traceparent"))
    assert got == (TRACE, sent["spanId"], True)
    assert sent["parentSpanId"] == PARENT
    assert worker.calls[0].header("tracestate") == "vendor=1"
    assert sum(name == "traceparent" for name, _ in worker.calls[0].headers) == 1


async def test_without_a_collector_the_clients_header_goes_through_as_it_came(chat: dict[str, Any]) -> None:
    async with upstream() as worker, running(config(worker.url)) as router:
        await router.client.post("/v1/chat/completions", json=chat, headers={"traceparent": GIVEN})
        await router.client.post("/v1/chat/completions", json=chat)

    assert [call.header("traceparent") for call in worker.calls] == [GIVEN, None]
