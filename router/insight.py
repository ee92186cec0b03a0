"""What watches and compares, built and owned in one place: recent requests, decision log, shadows, experiments.

The second half of the composition root; app builds it and hands its parts to the data plane. Not here: how any of it
works (telemetry, experiment, dashboard, request.explain).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any

import httpx
from fastapi import APIRouter

from router.clock import Clock
from router.config import RouterConfig
from router.dashboard.routes import dashboard_routes
from router.dashboard.views import DashboardViews
from router.experiment.desk import ExperimentDesk
from router.experiment.routes import experiment_routes
from router.experiment.shadow import shadows_of
from router.experiment.steering import Steering
from router.fleet.registry import Registry
from router.fleet.worker import WorkerState
from router.policies import Policy
from router.request.explain import Explainer
from router.request.explain_routes import explain_routes
from router.request.record import BodySink, OutcomeSink
from router.telemetry.backlog import Backlog
from router.telemetry.decision_log import DecisionLog, utc_now
from router.telemetry.insight_metrics import InsightCollector
from router.telemetry.recent_requests import RecentRequests
from router.telemetry.tracing import Tracer
from router.telemetry.traffic import Traffic
from router.types import WorkerId


class Insight:
    """Raises ConfigError for what cannot be served. Two of them can live in one process."""

    def __init__(
        self, config: RouterConfig, policy: Policy, registry: Registry, *, rng: Random, clock: Clock, version: str
    ) -> None:
        self._config = config
        self._registry = registry
        self.shadows = shadows_of(config.shadow, config.policies, rng)
        self.steering = Steering(policy, config.policy, self.shadows)
        self.recent = RecentRequests(config.explain)
        self.explainer = Explainer(config.explain, self.recent)
        self.desk = ExperimentDesk(self.steering, config.policies, self._members, rng=rng, clock=clock)
        self.decision_log: DecisionLog | None = None
        if config.decision_log.dir:
            self.decision_log = DecisionLog(
                config.decision_log, trieway=version, block_bytes=config.prompt_key.block_bytes, clock=clock
            )
        self.tracer: Tracer | None = None
        if config.tracing.otlp_url:
            self.tracer = Tracer(config.tracing, version=version, clock=clock, unix_s=lambda: utc_now().timestamp())
        self.backlog = Backlog()
        self.traffic = Traffic(clock, self.backlog)
        self.collector = InsightCollector(
            self.decision_log, lambda: [shadow.view() for shadow in self.shadows], self.desk.counts
        )
        self._views = DashboardViews(
            registry=registry,
            recent=self.recent,
            traffic=self.traffic,
            desk=self.desk,
            shadows=self.shadows,
            policy=policy,
            policy_name=config.policy,
            version=version,
            clock=clock,
        )
        registry.listen(self.steering.observe)

    def begin(self) -> None:
        """Start the configured experiment, if there is one; call it once the configured workers are members."""
        if self._config.experiment.arms:
            self.desk.start(self._config.experiment)

    @property
    def sinks(self) -> Sequence[OutcomeSink]:
        sinks: list[OutcomeSink] = [self.recent.ended, self.desk.record, self.backlog.add]
        return [*sinks, self.tracer.observe] if self.tracer else sinks

    @property
    def body_sinks(self) -> Sequence[BodySink]:
        return [self.decision_log.write] if self.decision_log else []

    def run(self, spawn: Callable[[Coroutine[Any, Any, None]], object], client: httpx.AsyncClient) -> None:
        """Start its tasks through `spawn`, whose owner cancels them."""
        if self.decision_log:
            spawn(self.decision_log.run())
        if self.tracer:
            spawn(self.tracer.run(client))

    def routes(self) -> Sequence[APIRouter]:
        return [explain_routes(self.recent), experiment_routes(self.desk), dashboard_routes(self._views)]

    def _members(self) -> list[WorkerId]:
        """Workers that an experiment may count on: neither draining nor gone."""
        leaving = (WorkerState.DRAINING, WorkerState.GONE)
        return [worker.id for worker in self._registry.all() if worker.state not in leaving]
