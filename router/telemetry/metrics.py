"""Every Prometheus name, unit and label of the router, in one file. Reads Outcomes and the registry; measures nothing.

Labels are bounded: workers and policies are the operator's, endpoints and reasons are fixed lists, statuses are
numbers that workers send. No label holds what a client wrote.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from router.clock import Clock, monotonic
from router.fleet.registry import Registry
from router.telemetry.fleet_metrics import FleetCollector, IndexBlocks, Lookups
from router.types import Outcome

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0)
DECISION_SECONDS = (5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3)
ITL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 1.0)
MATCH_ERROR_TOKENS = (-16384, -4096, -1024, -256, -64, 64, 256, 1024, 4096, 16384)
"""Below -64 the worker held less than was predicted, above 64 more; between, a block more or less."""


class Metrics:
    """All metrics of one app; `observe` is a sink of Outcomes, `render` is the body of `/metrics`."""

    def __init__(
        self, fleet: Registry, clock: Clock = monotonic, index_blocks: IndexBlocks = dict, lookups: Lookups = dict
    ) -> None:
        self._prometheus = CollectorRegistry()
        into = self._prometheus
        by_worker = ("policy", "worker")
        self._requests = Counter(
            "trieway_requests", "Requests ended, by how.", ("endpoint", "policy", "worker", "status", "error"),
            registry=into,
        )
        self._reasons = Counter(
            "trieway_decisions", "Decisions, by reason.", ("policy", "worker", "reason"), registry=into
        )
        self._attempts = Counter("trieway_retries", "Attempts after the first.", ("policy",), registry=into)
        self._ttft = Histogram(
            "trieway_ttft_seconds", "Arrival to first byte of the answer.", by_worker, buckets=SECONDS, registry=into
        )
        self._e2e = Histogram(
            "trieway_e2e_seconds", "Arrival to end of the answer.", by_worker, buckets=SECONDS, registry=into
        )
        self._itl = Histogram(
            "trieway_itl_seconds", "Mean time between events of a stream.", by_worker, buckets=ITL_SECONDS,
            registry=into,
        )
        self._decision = Histogram(
            "trieway_decision_seconds", "Time a policy took.", ("policy",), buckets=DECISION_SECONDS, registry=into
        )
        self._prompt = Counter("trieway_prompt_tokens", "Prompt tokens workers reported.", by_worker, registry=into)
        self._cached = Counter("trieway_cached_tokens", "Cached tokens workers reported.", by_worker, registry=into)
        self._completion = Counter(
            "trieway_completion_tokens", "Completion tokens workers reported.", by_worker, registry=into
        )
        self._expected = Counter(
            "trieway_expected_cached_tokens", "Prefix match predicted, where cached tokens were reported.", by_worker,
            registry=into,
        )
        self._match_error = Histogram(
            "trieway_match_error_tokens", "Cached tokens reported less those predicted, per request.", by_worker,
            buckets=MATCH_ERROR_TOKENS, registry=into,
        )
        self._prometheus.register(FleetCollector(fleet, clock, index_blocks, lookups))

    def observe(self, outcome: Outcome) -> None:
        """Count one ended request."""
        worker = outcome.worker or ""
        policy = outcome.policy
        self._requests.labels(outcome.endpoint, policy, worker, str(outcome.status), outcome.error or "").inc()
        decision = outcome.decision
        if decision is None:
            return
        self._reasons.labels(policy, worker, decision.reason.value).inc()
        self._decision.labels(policy).observe(outcome.decision_s)
        if outcome.attempts > 1:
            self._attempts.labels(policy).inc(outcome.attempts - 1)
        self._e2e.labels(policy, worker).observe(outcome.e2e_s)
        if outcome.ttft_s is not None:
            self._ttft.labels(policy, worker).observe(outcome.ttft_s)
        if outcome.itl_mean_s is not None:
            self._itl.labels(policy, worker).observe(outcome.itl_mean_s)
        self._count_tokens(outcome, policy, worker)

    def _count_tokens(self, outcome: Outcome, policy: str, worker: str) -> None:
        if outcome.prompt_tokens is not None:
            self._prompt.labels(policy, worker).inc(max(outcome.prompt_tokens, 0))
        if outcome.completion_tokens is not None:
            self._completion.labels(policy, worker).inc(max(outcome.completion_tokens, 0))
        if outcome.cached_tokens is not None and outcome.decision is not None:
            self._cached.labels(policy, worker).inc(max(outcome.cached_tokens, 0))
            self._expected.labels(policy, worker).inc(max(outcome.decision.match_tokens, 0.0))
            self._match_error.labels(policy, worker).observe(outcome.cached_tokens - outcome.decision.match_tokens)

    def render(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self._prometheus)
