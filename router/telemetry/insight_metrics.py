"""Metrics of what watches: the decision log, shadows, the running experiment.

Read from their own counts when Prometheus asks. Called by telemetry.metrics. Not here: requests (metrics), the fleet
(fleet_metrics).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class LogCounts(Protocol):
    """What a decision log counts, in requests."""

    written: int
    dropped: int
    failed: int


ShadowViews = Callable[[], Sequence[Mapping[str, Any]]]
"""Every shadow's score, as `experiment.shadow` spells it."""
ArmCounts = Callable[[], Sequence[tuple[str, str, int, int, int]]]
"""(arm, policy, requests, failed, spilled) of the running experiment; empty when none runs."""


SHADOWS: tuple[tuple[str, str, Callable[[Mapping[str, Any]], float]], ...] = (
    ("decisions", "Requests a shadow was asked about.", lambda view: view["asked"]),
    ("agreements", "Requests for which a shadow chose the live policy's worker.",
     lambda view: round((view["agreement"] or 0.0) * view["asked"])),
    ("skipped", "Requests a shadow was not asked about, to stay within its budget.", lambda view: view["skipped"]),
    ("seconds", "Seconds a shadow has taken.", lambda view: view["spent_s"]),
)  # fmt: skip


class InsightCollector(Collector):
    """`decision_log` is None where none is written."""

    def __init__(self, decision_log: LogCounts | None, shadows: ShadowViews, arms: ArmCounts) -> None:
        self._log = decision_log
        self._shadows = shadows
        self._arms = arms

    def collect(self) -> Iterator[Metric]:
        for name, about in (
            ("written", "Requests written to the decision log."),
            ("dropped", "Requests that the decision log's full queue could not take."),
            ("failed", "Requests that could not be written to the decision log."),
        ):
            family = CounterMetricFamily(f"trieway_decision_log_{name}", about)
            if self._log is not None:
                family.add_metric([], getattr(self._log, name))
            yield family
        yield from self._shadow_metrics()
        yield from self._arm_metrics()

    def _shadow_metrics(self) -> Iterator[Metric]:
        views = self._shadows()
        for name, about, read in SHADOWS:
            family = CounterMetricFamily(f"trieway_shadow_{name}", about, labels=["shadow"])
            for view in views:
                family.add_metric([str(view["policy"])], read(view))
            yield family

    def _arm_metrics(self) -> Iterator[Metric]:
        arms = self._arms()
        running = GaugeMetricFamily("trieway_experiment_running", "1 while an experiment runs.")
        running.add_metric([], float(bool(arms)))
        yield running
        for place, name, about in (
            (2, "requests", "Requests of the running experiment's arm that count."),
            (3, "failed", "Those that failed."),
            (4, "spilled", "Requests that had to leave their arm's workers."),
        ):
            family = GaugeMetricFamily(f"trieway_experiment_{name}", about, labels=["arm", "policy"])
            for arm in arms:
                family.add_metric([arm[0], arm[1]], float(arm[place]))
            yield family
