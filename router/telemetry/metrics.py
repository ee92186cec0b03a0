"""Prometheus metrics of requests: every name, unit and label, and how an Outcome counts into them. Measures nothing.

Labels are bounded: workers, policies and arms are the operator's, endpoints and reasons are fixed lists, statuses are
numbers that workers send. No label holds what a client wrote. Gauges of the fleet are in fleet_metrics, those of the
decision log, shadows and experiments in insight_metrics. docs/metrics.md lists them all, and a test keeps it true.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.registry import Collector

from router.clock import Clock, monotonic
from router.fleet.registry import Registry
from router.telemetry.fleet_metrics import FleetCollector, IndexBlocks, Lookups
from router.types import ArmName, Outcome

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
        self._prometheus = CollectorRegistry()
        into = self._prometheus
        self._requests = Counter(
            "trieway_requests", "Requests ended, by how.", ("endpoint", "policy", "worker", "status", "error"),
            registry=into,
        )
        self._reasons = Counter(
            "trieway_decisions", "Decisions, by reason.", ("policy", "worker", "reason"), registry=into
        )
        self._retries = Counter("trieway_retries", "Attempts after the first.", ("policy",), registry=into)
        self._decision = Histogram(
            "trieway_decision_seconds", "Time a policy took.", ("policy",), buckets=DECISION_SECONDS, registry=into
        )
        self._by_worker = _Series("trieway", BY_WORKER, into)
        self._by_arm = _Series("trieway_arm", BY_ARM, into)
        self._errors = _Errors(into)
        self._ended: dict[tuple[str, str, str, int, str], Counter] = {}
        self._reasoned: dict[tuple[str, str, str], Counter] = {}
        self._prometheus.register(FleetCollector(fleet, clock, index_blocks, lookups))
        for collector in collectors:
            self._prometheus.register(collector)

    def observe(self, outcome: Outcome) -> None:
        """Count one ended request."""
        worker, policy, decision = outcome.worker or "", outcome.policy, outcome.decision
        how = (outcome.endpoint, policy, worker, outcome.status, outcome.error or "")
        ended = self._ended.get(how)
        if ended is None:
            ended = self._ended[how] = self._requests.labels(*(str(value) for value in how))
        ended.inc()
        if decision is None:
            return
        why = (policy, worker, decision.reason.value)
        reasoned = self._reasoned.get(why)
        if reasoned is None:
            reasoned = self._reasoned[why] = self._reasons.labels(*why)
        reasoned.inc()
        self._decision.labels(policy).observe(outcome.decision_s)
        if outcome.attempts > 1:
            self._retries.labels(policy).inc(outcome.attempts - 1)
        self._by_worker.of((policy, worker)).observe(outcome)
        self._errors.observe(outcome, policy, worker)
        if outcome.arm is not None and not outcome.spilled:
            self._observe_arm(outcome.arm, outcome)

    def _observe_arm(self, arm: ArmName, outcome: Outcome) -> None:
        self._by_arm.of((arm, outcome.policy)).observe(outcome)

    def render(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self._prometheus)


class _Series:
    """Durations and tokens under one prefix and set of labels."""

    def __init__(self, prefix: str, labels: tuple[str, ...], into: CollectorRegistry) -> None:
        def seconds(name: str, about: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
            return Histogram(f"{prefix}_{name}_seconds", about, labels, buckets=buckets, registry=into)

        def tokens(name: str, about: str) -> Counter:
            return Counter(f"{prefix}_{name}_tokens", about, labels, registry=into)

        self.ttft = seconds("ttft", "Arrival to first byte of the answer.")
        self.e2e = seconds("e2e", "Arrival to end of the answer.")
        self.itl = seconds("itl", "Mean time between events of a stream.", ITL_SECONDS)
        self.prompt = tokens("prompt", "Prompt tokens workers reported.")
        self.cached = tokens("cached", "Cached tokens workers reported.")
        self.completion = tokens("completion", "Completion tokens workers reported.")
        self.expected = tokens("expected_cached", "Prefix match predicted, where cached tokens were reported.")
        self._children: dict[tuple[str, str], _Child] = {}

    def of(self, labels: tuple[str, str]) -> _Child:
        """The series with these label values; looked up once, because prometheus_client's own lookup takes a lock."""
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = _Child(self, labels)
        return child


class _Child:
    """The series of one worker, or of one arm."""

    __slots__ = ("_cached", "_completion", "_e2e", "_expected", "_itl", "_prompt", "_ttft")

    def __init__(self, family: _Series, labels: tuple[str, str]) -> None:
        self._ttft = family.ttft.labels(*labels)
        self._e2e = family.e2e.labels(*labels)
        self._itl = family.itl.labels(*labels)
        self._prompt = family.prompt.labels(*labels)
        self._cached = family.cached.labels(*labels)
        self._completion = family.completion.labels(*labels)
        self._expected = family.expected.labels(*labels)

    def observe(self, outcome: Outcome) -> None:
        self._e2e.observe(outcome.e2e_s)
        if outcome.ttft_s is not None:
            self._ttft.observe(outcome.ttft_s)
        if outcome.itl_mean_s is not None:
            self._itl.observe(outcome.itl_mean_s)
        if outcome.prompt_tokens is not None:
            self._prompt.inc(max(outcome.prompt_tokens, 0))
        if outcome.completion_tokens is not None:
            self._completion.inc(max(outcome.completion_tokens, 0))
        if outcome.cached_tokens is not None and outcome.decision is not None:
            self._cached.inc(max(outcome.cached_tokens, 0))
            self._expected.inc(max(outcome.decision.match_tokens, 0.0))


class _Errors:
    """Prediction beside truth, request by request."""

    def __init__(self, into: CollectorRegistry) -> None:
        self._match = Histogram(
            "trieway_match_error_tokens", "Cached tokens reported less those predicted, per request.", BY_WORKER,
            buckets=MATCH_ERROR_TOKENS, registry=into,
        )
        self._ttft = Histogram(
            "trieway_ttft_error_seconds", "TTFT less the one predicted, per request.", BY_WORKER,
            buckets=TTFT_ERROR_SECONDS, registry=into,
        )
        self._cached = Histogram(
            "trieway_cached_tokens_per_request", "Cached tokens reported, per request.", ("policy",), buckets=TOKENS,
            registry=into,
        )
        self._expected = Histogram(
            "trieway_expected_cached_tokens_per_request", "Prefix match predicted, per request.", ("policy",),
            buckets=TOKENS, registry=into,
        )

    def observe(self, outcome: Outcome, policy: str, worker: str) -> None:
        decision = outcome.decision
        if decision is None:
            return
        self._expected.labels(policy).observe(decision.match_tokens)
        if outcome.cached_tokens is not None:
            self._cached.labels(policy).observe(outcome.cached_tokens)
            self._match.labels(policy, worker).observe(outcome.cached_tokens - decision.match_tokens)
        if outcome.ttft_s is not None and decision.expected_ttft_s is not None:
            self._ttft.labels(policy, worker).observe(outcome.ttft_s - decision.expected_ttft_s)
