"""Prometheus metrics of requests: every name, unit and label, and how an Outcome counts into them. Measures nothing.

Labels are bounded: workers, policies and arms are the operator's, endpoints and reasons are fixed lists, statuses are
numbers that workers send. No label holds what a client wrote. Gauges of the fleet are in fleet_metrics, those of the
decision log, shadows and experiments in insight_metrics. docs/metrics.md lists them all, and a test keeps it true.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from router.clock import Clock, monotonic
from router.fleet.registry import Registry
from router.telemetry.fleet_metrics import FleetCollector, IndexBlocks, Lookups
from router.telemetry.series import Count, Counts, Spread, Spreads
from router.types import Decision, Outcome

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


class Metrics:
    """All metrics of one app; `observe` is a sink of Outcomes, `render` is the body of `/metrics`."""

    def __init__(
        self,
        fleet: Registry,
        clock: Clock = monotonic,
        index_blocks: IndexBlocks = dict,
        lookups: Lookups = dict,
        *collectors: Collector,
    ) -> None:
        self._requests = _Requests()
        self._prometheus = CollectorRegistry()
        self._prometheus.register(ProcessCollector(registry=None))
        self._prometheus.register(self._requests)
        self._prometheus.register(FleetCollector(fleet, clock, index_blocks, lookups))
        for collector in collectors:
            self._prometheus.register(collector)

    def observe(self, outcome: Outcome) -> None:
        """Count one ended request."""
        self._requests.observe(outcome)

    def render(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self._prometheus)


class _Requests(Collector):
    """Everything that is counted per request. A row of series is looked up once and kept: labels are bounded."""

    def __init__(self) -> None:
        self._ended = Counts(
            "trieway_requests", "Requests ended, by how.", ("endpoint", "policy", "worker", "status", "error")
        )
        self._reasons = Counts("trieway_decisions", "Decisions, by reason.", ("policy", "worker", "reason"))
        self._by_policy = _PolicySeries()
        self._by_worker = _Series("trieway", BY_WORKER)
        self._by_arm = _Series("trieway_arm", BY_ARM)
        self._errors = _ErrorSeries()
        self._how: dict[tuple[str, str, str, int, str | None], Count] = {}
        self._why: dict[tuple[str, str, str], _Row] = {}

    def collect(self) -> Iterator[Metric]:
        for family in (self._ended, self._reasons):
            yield family.family()
        for group in (self._by_policy, self._by_worker, self._by_arm, self._errors):
            for each in group.families:
                yield each.family()

    def observe(self, outcome: Outcome) -> None:
        decision, policy = outcome.decision, outcome.policy
        worker = "" if decision is None else decision.worker
        how = (outcome.endpoint, policy, worker, outcome.status, outcome.error)
        ended = self._how.get(how)
        if ended is None:
            ended = self._how[how] = self._ended.of(
                outcome.endpoint, policy, worker, str(outcome.status), outcome.error or ""
            )
        ended.value += 1.0
        if decision is None:
            return
        why = (policy, worker, decision.reason._value_)  # `.value` is a slow property
        row = self._why.get(why)
        if row is None:
            row = self._why[why] = _Row(
                self._reasons.of(*why), self._by_policy, self._by_worker.of((policy, worker)), self._errors, policy,
                worker,
            )  # fmt: skip
        row.observe(outcome, decision)
        if outcome.arm is not None and not outcome.spilled:
            self._by_arm.of((outcome.arm, policy)).observe(outcome, decision)


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

    def observe(self, outcome: Outcome, decision: Decision) -> None:
        self._e2e.observe(outcome.e2e_s)
        if outcome.ttft_s is not None:
            self._ttft.observe(outcome.ttft_s)
        if outcome.itl_mean_s is not None:
            self._itl.observe(outcome.itl_mean_s)
        tokens = outcome.prompt_tokens
        if tokens is not None and tokens > 0:
            self._prompt.value += tokens
        tokens = outcome.completion_tokens
        if tokens is not None and tokens > 0:
            self._completion.value += tokens
        tokens = outcome.cached_tokens
        if tokens is not None:
            match_tokens = decision.match_tokens
            self._cached.value += max(0, tokens)
            self._expected.value += max(0.0, match_tokens)


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


class _Row:
    """Every series that a request of one policy, worker and reason counts in."""

    __slots__ = (
        "_cached", "_decision", "_expected", "_match_error", "_policy", "_reasoned", "_retries", "_ttft_error",
        "_worker",
    )  # fmt: skip

    def __init__(
        self, reasoned: Count, by_policy: _PolicySeries, worker: _Child, errors: _ErrorSeries, policy: str, name: str
    ) -> None:
        self._reasoned = reasoned
        self._worker = worker
        self._policy = policy
        self._decision = by_policy.decision.of(policy)
        self._cached = by_policy.cached.of(policy)
        self._expected = by_policy.expected.of(policy)
        self._retries = by_policy.retries
        self._match_error = errors.match.of(policy, name)
        self._ttft_error = errors.ttft.of(policy, name)

    def observe(self, outcome: Outcome, decision: Decision) -> None:
        self._reasoned.value += 1.0
        self._decision.observe(outcome.decision_s)
        self._expected.observe(decision.match_tokens)
        cached = outcome.cached_tokens
        if cached is not None:
            self._cached.observe(cached)
            self._match_error.observe(cached - decision.match_tokens)
        if outcome.ttft_s is not None and decision.expected_ttft_s is not None:
            self._ttft_error.observe(outcome.ttft_s - decision.expected_ttft_s)
        if outcome.attempts > 1:
            self._retries.of(self._policy).value += outcome.attempts - 1
        self._worker.observe(outcome, decision)
