"""`/metrics` of all processes as one: what each counts for itself is added up, everything else all know alike.

Requests are counted in every process (replica), fleet gauges are the leader's. What is left, by name in OWN, each tells
the others every second; the last figures of one that ended are kept, so that no counter ever falls. Called by replica
and app. No I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, Sample

from router.telemetry.metrics import Metrics

OWN = frozenset({
    "trieway_queue_waiting_requests", "trieway_queue_running_requests", "trieway_queue_wait_seconds",
    "trieway_queue_waited", "trieway_queue_refused", "trieway_retry_budget_requests", "trieway_retries_refused",
    "trieway_exact_lookups", "trieway_decision_log_written", "trieway_decision_log_dropped",
    "trieway_decision_log_failed", "trieway_shadow_decisions", "trieway_shadow_agreements", "trieway_shadow_skipped",
    "trieway_shadow_seconds", "trieway_held_requests", "trieway_hold_seconds", "trieway_holds", "trieway_process_gaps",
    "process_cpu_seconds", "process_resident_memory_bytes",
    "process_virtual_memory_bytes", "process_open_fds", "process_max_fds",
})  # fmt: skip
"""Families that one process counts for itself alone."""
Label = tuple[tuple[str, str], ...]
Figures = dict[tuple[str, Label], float]


class Totals:
    """`processes` tells of how many the figures are fresh, `restarts` how often one was started again."""

    def __init__(self, metrics: Metrics) -> None:
        self.gaps = 0
        self.processes = 1
        self.restarts = 0
        self._metrics = metrics
        self._served: Counter[int] = Counter()
        self._figures: dict[int, Figures] = {}
        self._departed: Figures = {}

    # -- what is told and heard -----------------------------------------------------------------------------------

    def served(self, number: int) -> None:
        """A request of that process has ended."""
        self._served[number] += 1

    def own(self) -> list[tuple[str, Label, float]]:
        """This process's own figures."""
        return [
            (*_key(sample), sample.value)
            for family in self._families()
            if family.name in OWN
            for sample in family.samples
        ]

    def heard(self, source: int, rows: Iterable[Sequence[Any]]) -> None:
        """Those of another one."""
        self._figures[source] = _figures(rows)

    def gone(self, source: int) -> None:
        """It has ended: its gauges are nothing now, its counters stay."""
        for (name, labels), value in self._figures.pop(source, {}).items():
            if name.endswith("_total"):
                self._departed[name, labels] = self._departed.get((name, labels), 0.0) + value

    def dump(self) -> Any:
        """For a process that joins."""
        departed = [(name, labels, value) for (name, labels), value in self._departed.items()]
        return {"departed": departed, "served": dict(self._served), "requests": self._metrics.dump()}

    def load(self, saved: Any) -> None:
        """What `dump` made, in another process."""
        self._departed = _figures(saved["departed"])
        self._served = Counter({int(number): count for number, count in saved["served"].items()})
        self._metrics.load(saved["requests"])

    # -- what is shown --------------------------------------------------------------------------------------------

    def render(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """Every family, for all processes together."""
        sums: Figures = dict(self._departed)
        for figures in self._figures.values():
            for key, value in figures.items():
                sums[key] = sums.get(key, 0.0) + value
        for family in self._families():
            if family.name in OWN:
                yield _summed(family, sums)
            else:
                yield family

    def _families(self) -> Iterator[Metric]:
        yield from self._metrics.collect()
        yield GaugeMetricFamily(
            "trieway_processes", "Router processes whose figures are in this answer.", value=self.processes
        )
        yield CounterMetricFamily(
            "trieway_process_restarts", "Times that a process ended and was started again.", value=self.restarts
        )
        yield CounterMetricFamily(
            "trieway_process_gaps", "Times that a process fell behind what the others told.", value=self.gaps
        )
        served = CounterMetricFamily("trieway_process_requests", "Requests ended, by process.", labels=["process"])
        for number, count in sorted(self._served.items()):
            served.add_metric([str(number)], count)
        yield served


def _summed(family: Metric, others: Figures) -> Metric:
    """The family with what the others have added to it."""
    whole = Metric(family.name, family.documentation, family.type, family.unit)
    shown: set[tuple[str, Label]] = set()
    for sample in family.samples:
        key = _key(sample)
        shown.add(key)
        whole.add_sample(sample.name, sample.labels, sample.value + others.get(key, 0.0))
    suffixes = (family.name, f"{family.name}_total")
    for (name, labels), value in others.items():
        if name in suffixes and (name, labels) not in shown:
            whole.add_sample(name, dict(labels), value)
    return whole


def _key(sample: Sample) -> tuple[str, Label]:
    return sample.name, tuple(sorted(sample.labels.items()))


def _figures(rows: Iterable[Sequence[Any]]) -> Figures:
    return {(name, tuple((key, text) for key, text in labels)): value for name, labels, value in rows}
