"""Prometheus metrics of requests: every name, unit and label, and how Outcomes count into them. Measures nothing.

Labels are bounded: workers, policies and arms are the operator's, endpoints and reasons are fixed lists, statuses are
numbers that workers send. No label holds what a client wrote. Gauges of the fleet are in fleet_metrics, those of the
decision log, shadows and experiments in insight_metrics. docs/metrics.md lists them all, and a test keeps it true.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from router.clock import Clock, monotonic
from router.fleet.registry import Registry
from router.records import Outcome
from router.telemetry.backlog import Backlog
from router.telemetry.fleet_metrics import FleetCollector, IndexBlocks, Lookups
from router.telemetry.series import Count, Counts, Spread, Spreads
from router.types import ArmName

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0)
DECISION_SECONDS = (5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3)
ITL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 1.0)
TOKENS = (0, 64, 256, 1024, 4096, 16384, 65536, 262144)
MATCH_ERROR_TOKENS = (-16384, -4096, -1024, -256, -64, 64, 256, 1024, 4096, 16384)
"""Below -64 the worker held less than was predicted, above 64 more; between, a block more or less."""
TTFT_ERROR_SECONDS = (-10.0, -2.5, -1.0, -0.25, -0.1, -0.025, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0)
"""Above 0 the answer came later than was predicted."""
BY_WORKER = ("policy", "worker")
BY_ARM = ("arm", "policy")
Alike: TypeAlias = tuple[str, str, str, str | None, int, str | None, ArmName | None]
"""Endpoint, policy, worker, reason, status, error and arm of requests that count in the same series."""


class Metrics:
    """All metrics of one app. Requests come through `backlog`; `render` is the body of `/metrics`."""

    def __init__(
        self,
        fleet: Registry,
        backlog: Backlog,
        clock: Clock = monotonic,
        index_blocks: IndexBlocks = dict,
        lookups: Lookups = dict,
        *collectors: Collector,
    ) -> None:
        self._backlog = backlog
        self._requests = _Requests()
        backlog.counters.append(self._requests.count)
        self._rest = CollectorRegistry()
        self._rest.register(ProcessCollector(registry=None))
        self._rest.register(FleetCollector(fleet, clock, index_blocks, lookups))
        for collector in collectors:
            self._rest.register(collector)

    def render(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """Every family as it is now."""
        yield from self.requests(())
        yield from self.rest()

    def requests(self, elsewhere: Sequence[Any]) -> Iterator[Metric]:
        """What is counted of requests, with what other processes of the same router counted (their `dump`s)."""
        self._backlog.settle()
        if not elsewhere:
            return self._requests.collect()
        return _sum_of([self.dump(), *elsewhere]).collect()

    def rest(self) -> Iterator[Metric]:
        """Every other family."""
        yield from self._rest.collect()

    def dump(self) -> list[Any]:
        """What was counted of requests, for another process of the same router."""
        self._backlog.settle()
        return self._requests.dump()


def total_of(dumps: Sequence[Any]) -> list[Any]:
    """What several processes of the same router have counted, as one of them would dump it."""
    return _sum_of(dumps).dump()


def _sum_of(dumps: Sequence[Any]) -> _Requests:
    whole = _Requests()
    for each in dumps:
        whole.add(each)
    return whole


class _Requests:
    """Everything that is counted per request. Those that are alike in every label share a row of series."""

    def __init__(self) -> None:
        self._ended = Counts(
            "trieway_requests", "Requests ended, by how.", ("endpoint", "policy", "worker", "status", "error")
        )
        self._reasons = Counts("trieway_decisions", "Decisions, by reason.", ("policy", "worker", "reason"))
        self._by_policy = _PolicySeries()
        self._by_worker = _Series("trieway", BY_WORKER)
        self._by_arm = _Series("trieway_arm", BY_ARM)
        self._errors = _ErrorSeries()
        self._rows: dict[Alike, _Row] = {}

    def collect(self) -> Iterator[Metric]:
        for each in self.counted():
            yield each.family()

    def dump(self) -> list[Any]:
        return [each.dump() for each in self.counted()]

    def add(self, saved: Iterable[Any]) -> None:
        """Count what `dump` made in the same version as well."""
        for each, series in zip(self.counted(), saved, strict=True):
            each.add(series)

    def counted(self) -> Iterator[Counts | Spreads]:
        """Every family of series, in an order that never changes."""
        yield from (self._ended, self._reasons)
        for group in (self._by_policy, self._by_worker, self._by_arm, self._errors):
            yield from group.families

    def count(self, outcomes: Sequence[Outcome]) -> None:
        for one in outcomes:
            decision, arm = one.decision, None if one.spilled else one.arm
            if decision is None:
                key: Alike = (one.endpoint, one.policy, "", None, one.status, one.error, arm)
            else:
                reason = decision.reason._value_  # `.value` is a slow property, and an Enum's hash a slow method
                key = (one.endpoint, one.policy, decision.worker, reason, one.status, one.error, arm)
            row = self._rows.get(key)
            if row is None:
                row = self._rows[key] = self._row(*key)
            row.count(one)

    def _row(
        self, endpoint: str, policy: str, worker: str, reason: str | None, status: int, error: str | None,
        arm: ArmName | None,
    ) -> _Row:  # fmt: skip
        ended = self._ended.of(endpoint, policy, worker, str(status), error or "")
        if reason is None:
            return _Row(ended)
        return _DecidedRow(
            ended,
            self._reasons.of(policy, worker, reason),
            _PolicyChild(self._by_policy, policy),
            _ErrorChild(self._errors, policy, worker),
            self._by_worker.of((policy, worker)),
            None if arm is None else self._by_arm.of((arm, policy)),
        )


class _PolicySeries:
    """What is told by policy alone."""

    def __init__(self) -> None:
        self.decision = Spreads("trieway_decision_seconds", "Time a policy took.", ("policy",), DECISION_SECONDS)
        self.cached = Spreads(
            "trieway_cached_tokens_per_request", "Cached tokens reported, per request.", ("policy",), TOKENS
        )
        self.expected = Spreads(
            "trieway_expected_cached_tokens_per_request", "Prefix match predicted, per request.", ("policy",), TOKENS
        )
        self.retries = Counts("trieway_retries", "Attempts after the first.", ("policy",))
        self.families = (self.retries, self.decision, self.cached, self.expected)


class _Series:
    """Durations and tokens under one prefix and set of labels."""

    def __init__(self, prefix: str, labels: tuple[str, ...]) -> None:
        def seconds(name: str, about: str, bounds: tuple[float, ...] = SECONDS) -> Spreads:
            return Spreads(f"{prefix}_{name}_seconds", about, labels, bounds)

        def tokens(name: str, about: str) -> Counts:
            return Counts(f"{prefix}_{name}_tokens", about, labels)

        self.ttft = seconds("ttft", "Arrival to first byte of the answer.")
        self.e2e = seconds("e2e", "Arrival to end of the answer.")
        self.itl = seconds("itl", "Mean time between events of a stream.", ITL_SECONDS)
        self.prompt = tokens("prompt", "Prompt tokens workers reported.")
        self.cached = tokens("cached", "Cached tokens workers reported.")
        self.completion = tokens("completion", "Completion tokens workers reported.")
        self.expected = tokens("expected_cached", "Prefix match predicted, where cached tokens were reported.")
        self.families = (self.ttft, self.e2e, self.itl, self.prompt, self.cached, self.completion, self.expected)
        self._children: dict[tuple[str, str], _Child] = {}

    def of(self, labels: tuple[str, str]) -> _Child:
        """The series with these label values."""
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = _Child(self, labels)
        return child


class _Child:
    """The series of one worker, or of one arm."""

    __slots__ = ("_cached", "_completion", "_e2e", "_expected", "_itl", "_prompt", "_ttft")

    def __init__(self, family: _Series, labels: tuple[str, str]) -> None:
        self._ttft: Spread = family.ttft.of(*labels)
        self._e2e: Spread = family.e2e.of(*labels)
        self._itl: Spread = family.itl.of(*labels)
        self._prompt: Count = family.prompt.of(*labels)
        self._cached: Count = family.cached.of(*labels)
        self._completion: Count = family.completion.of(*labels)
        self._expected: Count = family.expected.of(*labels)

    def count(self, one: Outcome, match_tokens: float) -> None:
        self._e2e.observe(one.e2e_s)
        ttft_s, itl_s, prompt, completion, cached = (
            one.ttft_s, one.itl_mean_s, one.prompt_tokens, one.completion_tokens, one.cached_tokens
        )  # fmt: skip
        if ttft_s is not None:
            self._ttft.observe(ttft_s)
        if itl_s is not None:
            self._itl.observe(itl_s)
        if prompt is not None:
            self._prompt.add(prompt)
        if completion is not None:
            self._completion.add(completion)
        if cached is not None:
            self._cached.add(cached)
            self._expected.add(match_tokens)


class _ErrorSeries:
    """Prediction beside truth, request by request."""

    def __init__(self) -> None:
        self.match = Spreads(
            "trieway_match_error_tokens", "Cached tokens reported less those predicted, per request.", BY_WORKER,
            MATCH_ERROR_TOKENS,
        )  # fmt: skip
        self.ttft = Spreads(
            "trieway_ttft_error_seconds", "TTFT less the one predicted, per request.", BY_WORKER, TTFT_ERROR_SECONDS
        )
        self.families = (self.match, self.ttft)


class _PolicyChild:
    """The series of one policy."""

    __slots__ = ("cached", "decision", "expected", "policy", "retries")

    def __init__(self, family: _PolicySeries, policy: str) -> None:
        self.policy = policy
        self.decision = family.decision.of(policy)
        self.cached = family.cached.of(policy)
        self.expected = family.expected.of(policy)
        self.retries = family.retries


class _ErrorChild:
    """What was predicted of one worker beside what came."""

    __slots__ = ("match", "ttft")

    def __init__(self, family: _ErrorSeries, policy: str, worker: str) -> None:
        self.match = family.match.of(policy, worker)
        self.ttft = family.ttft.of(policy, worker)


class _Row:
    """Every series that requests count in which are alike: here those for which no worker was chosen."""

    __slots__ = ("_ended",)

    def __init__(self, ended: Count) -> None:
        self._ended = ended

    def count(self, one: Outcome) -> None:
        self._ended.value += 1


class _DecidedRow(_Row):
    """Those for which one was."""

    __slots__ = ("_arm", "_errors", "_policy", "_reasoned", "_worker")

    def __init__(
        self, ended: Count, reasoned: Count, policy: _PolicyChild, errors: _ErrorChild, worker: _Child,
        arm: _Child | None,
    ) -> None:  # fmt: skip
        super().__init__(ended)
        self._reasoned = reasoned
        self._policy = policy
        self._errors = errors
        self._worker = worker
        self._arm = arm

    def count(self, one: Outcome) -> None:
        decision, policy, errors = one.decision, self._policy, self._errors
        assert decision is not None
        match_tokens, cached, expected_s, ttft_s = (
            decision.match_tokens, one.cached_tokens, decision.expected_ttft_s, one.ttft_s
        )  # fmt: skip
        self._ended.value += 1
        self._reasoned.value += 1
        policy.decision.observe(one.decision_s)
        policy.expected.observe(match_tokens)
        if cached is not None:
            policy.cached.observe(cached)
            errors.match.observe(cached - match_tokens)
        if expected_s is not None and ttft_s is not None:
            errors.ttft.observe(ttft_s - one.held_s - expected_s)
        if one.attempts > 1:
            policy.retries.of(policy.policy).value += one.attempts - 1
        self._worker.count(one, match_tokens)
        if self._arm is not None:
            self._arm.count(one, match_tokens)
