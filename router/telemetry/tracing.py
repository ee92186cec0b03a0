"""Traces: the client's `traceparent` continued to the worker, and one span per request sent to an OTLP collector.

Off until it has a collector; then `traceparent` passes through untouched, as all headers do. Formats: W3C Trace Context
(level 1) and OTLP/HTTP with JSON (opentelemetry-proto 1.x), which need no library. `begin` is called by
request.endpoints, `observe` is a sink of Outcomes, `run` a task of the app. Not here: what a request did (Outcome).
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from router.clock import Clock
from router.knob import knob, require
from router.records import Outcome
from router.types import TraceContext

log = logging.getLogger(__name__)

_TRACEPARENT = re.compile(r"^(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?$")
_SERVER = 2
_ERROR = 2
QUEUE_SPANS = 2048
BATCH_SPANS = 512
SEND_EVERY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingConfig:
    otlp_url: str = knob("", "OTLP/HTTP collector such as http://127.0.0.1:4318; unset: no traces")
    sample_ratio: float = knob(1.0, "share of requests traced whose client sends no traceparent")
    service_name: str = knob("trieway", "service.name of the router's spans")

    def __post_init__(self) -> None:
        require(0 <= self.sample_ratio <= 1, "sample_ratio must be between 0 and 1")
        require(not self.otlp_url or self.otlp_url.startswith(("http://", "https://")), "otlp_url must be an HTTP URL")


def parse_traceparent(header: str | None) -> tuple[str, str, bool] | None:
    """(trace id, parent span id, sampled); None for no header or one that the standard has us ignore."""
    found = _TRACEPARENT.match(header.strip()) if header else None
    if found is None or set(found[1]) == {"0"} or set(found[2]) == {"0"}:
        return None
    return found[1], found[2], bool(int(found[3], 16) & 1)


class Tracer:
    """Spans of one app. `unix_s` is the calendar time in seconds, read once; durations stay monotonic."""

    def __init__(self, config: TracingConfig, *, version: str, clock: Clock, unix_s: Callable[[], float]) -> None:
        self._config = config
        self._version = version
        self._unix_offset_s = unix_s() - clock()
        self._queue: list[Outcome] = []
        self._reachable = True
        self.dropped = 0

    def begin(self, headers: Mapping[str, str]) -> TraceContext | None:
        """The span of a request with these headers (lower-case names); None when it is not sampled."""
        given = parse_traceparent(headers.get("traceparent"))
        if given is None:
            trace_id, parent_id = secrets.token_hex(16), None
            sampled = int(trace_id[-8:], 16) < self._config.sample_ratio * 2**32
        else:
            trace_id, parent_id, sampled = given
        return TraceContext(trace_id=trace_id, span_id=secrets.token_hex(8), parent_id=parent_id) if sampled else None

    def observe(self, outcome: Outcome) -> None:
        """Queue the span of one ended request; a full queue drops it and counts."""
        if outcome.trace is None:
            return
        if len(self._queue) >= QUEUE_SPANS:
            self.dropped += 1
            return
        self._queue.append(outcome)

    async def run(self, client: httpx.AsyncClient) -> None:
        """Send what is queued every few seconds until cancelled."""
        while True:
            await asyncio.sleep(SEND_EVERY_S)
            await self.send(client)

    async def send(self, client: httpx.AsyncClient) -> None:
        """Send all that is queued. A collector that does not answer costs spans, never a request."""
        while self._queue:
            batch, self._queue = self._queue[:BATCH_SPANS], self._queue[BATCH_SPANS:]
            try:
                answer = await client.post(self._config.otlp_url.rstrip("/") + "/v1/traces", json=self.export(batch))
                answer.raise_for_status()
            except httpx.HTTPError as error:
                self.dropped += len(batch)
                if self._reachable:
                    log.warning("traces cannot be sent to %s: %s", self._config.otlp_url, error)
                self._reachable = False
                return
            self._reachable = True

    def export(self, batch: list[Outcome]) -> dict[str, Any]:
        """An OTLP ExportTraceServiceRequest in its JSON form."""
        resource = _attributes({"service.name": self._config.service_name, "service.version": self._version})
        spans = [self._span(outcome, outcome.trace) for outcome in batch if outcome.trace is not None]
        scope = {"name": "trieway", "version": self._version}
        scoped = [{"scope": scope, "spans": spans}]
        return {"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": scoped}]}

    def _span(self, outcome: Outcome, trace: TraceContext) -> dict[str, Any]:
        span: dict[str, Any] = {
            "traceId": trace.trace_id,
            "spanId": trace.span_id,
            "name": f"POST {outcome.endpoint}",
            "kind": _SERVER,
            "startTimeUnixNano": self._nanos(outcome.at_s),
            "endTimeUnixNano": self._nanos(outcome.at_s + outcome.e2e_s),
            "attributes": _attributes(_facts(outcome)),
            "events": [],
        }
        if trace.parent_id is not None:
            span["parentSpanId"] = trace.parent_id
        if outcome.ttft_s is not None:
            span["events"] = [{"timeUnixNano": self._nanos(outcome.at_s + outcome.ttft_s), "name": "first_token"}]
        if outcome.status >= 500:
            span["status"] = {"code": _ERROR, "message": outcome.error or ""}
        return span

    def _nanos(self, at_s: float) -> str:
        return str(round((at_s + self._unix_offset_s) * 1e6) * 1000)  # a double has no more than microseconds left


def traceparent(trace: TraceContext) -> bytes:
    """The header that makes the worker's spans children of ours."""
    return f"00-{trace.trace_id}-{trace.span_id}-01".encode()


def _facts(outcome: Outcome) -> dict[str, str | int | float | None]:
    decision = outcome.decision
    return {
        "http.request.method": "POST",
        "url.path": outcome.endpoint,
        "http.response.status_code": outcome.status,
        "error.type": outcome.error,
        "gen_ai.request.model": outcome.model,
        "gen_ai.usage.input_tokens": outcome.prompt_tokens,
        "gen_ai.usage.output_tokens": outcome.completion_tokens,
        "trieway.request_id": outcome.request_id,
        "trieway.policy": outcome.policy,
        "trieway.arm": outcome.arm,
        "trieway.worker": outcome.worker,
        "trieway.reason": decision.reason.value if decision else None,
        "trieway.attempts": outcome.attempts,
        "trieway.expected_match_tokens": decision.match_tokens if decision else None,
        "trieway.expected_ttft_s": decision.expected_ttft_s if decision else None,
        "trieway.cached_tokens": outcome.cached_tokens,
        "trieway.ttft_s": outcome.ttft_s,
        "trieway.decision_s": outcome.decision_s,
        "trieway.held_s": outcome.held_s,
    }


def _attributes(facts: Mapping[str, str | int | float | None]) -> list[dict[str, Any]]:
    """OTLP's spelling of key and value; integers are strings in its JSON. What is None is left out."""

    def spelled(value: str | int | float) -> dict[str, Any]:
        if isinstance(value, int):
            return {"intValue": str(value)}
        return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}

    return [{"key": key, "value": spelled(value)} for key, value in facts.items() if value is not None]
