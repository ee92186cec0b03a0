"""`/metrics` of all processes as one: what each counts for itself is added up, everything else all know alike.

A request is counted by the process that served it, fleet gauges are the leader's. Each tells the others every second,
and whenever it is asked, what it has counted of requests and the families by name in OWN; the last figures of one that
ended are kept, so that no counter that was shown ever falls. Called by replica and app. No I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, Sample

from router.telemetry.metrics import Metrics, total_of
from router.telemetry.traffic import Traffic

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
Told = Sequence[Any]


class Totals:
    """`processes` tells of how many the figures are fresh, `restarts` how often one was started again; `number` is this
    one's.
    """

    def __init__(self, metrics: Metrics, traffic: Traffic, number: int) -> None:
        self.gaps = 0
        self.processes = 1
        self.restarts = 0
        self._number = number
        self._metrics = metrics
        self._traffic = traffic
        self._told: dict[int, Told] = {}
        self._figures: dict[int, Figures] = {}
        self._departed: Figures = {}
        self._departed_requests: list[Any] = []
        self._departed_served: Counter[int] = Counter()

    # -- what is told and heard -----------------------------------------------------------------------------------

    def own(self) -> Told:
        """This process's own figures: (families in OWN, what was counted of requests, traffic)."""
        rows = [
            (*_key(sample), sample.value)
            for family in self._rest()
            if family.name in OWN
            for sample in family.samples
        ]
        return rows, self._metrics.dump(), self._traffic.dump()

    def heard(self, source: int, told: Told) -> None:
        """Those of another one."""
        self._told[source] = told
        self._figures[source] = _figures(told[0])
        self._traffic.heard(source, told[2])

    def gone(self, source: int) -> None:
        """It has ended: its gauges are nothing now, its counters stay."""
        for (name, labels), value in self._figures.pop(source, {}).items():
            if name.endswith("_total"):
                self._departed[name, labels] = self._departed.get((name, labels), 0.0) + value
        told = self._told.pop(source, None)
        if told is not None:
            self._departed_served[source] += _served(told[1])
            self._departed_requests = [total_of([*self._departed_requests, told[1]])]
        self._traffic.gone(source)

    def sources(self) -> set[int]:
        """Processes of which figures are known."""
        return set(self._told)

    def dump(self) -> Any:
        """For a process that joins."""
        rows, requests, _ = self.own()
        return {
            "departed": [(name, labels, value) for (name, labels), value in self._departed.items()],
            "requests": self._departed_requests,
            "served": dict(self._departed_served),
            "told": {**self._told, self._number: (rows, requests, self._traffic.dump(whole=True))},
        }

    def load(self, saved: Any) -> None:
        """What `dump` made, in another process."""
        self._departed = _figures(saved["departed"])
        self._departed_requests = list(saved["requests"])
        self._departed_served = Counter({int(number): count for number, count in saved["served"].items()})
        for number, told in saved["told"].items():
            self.heard(int(number), told)

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
        yield from self._metrics.requests([*self._departed_requests, *(told[1] for told in self._told.values())])
        for family in self._rest():
            if family.name in OWN:
                yield _summed(family, sums)
            else:
                yield family
        yield self._by_process()

    def _rest(self) -> Iterator[Metric]:
        yield from self._metrics.rest()
        yield GaugeMetricFamily(
            "trieway_processes", "Router processes whose figures are in this answer.", value=self.processes
        )
        yield CounterMetricFamily(
            "trieway_process_restarts", "Times that a process ended and was started again.", value=self.restarts
        )
        yield CounterMetricFamily(
            "trieway_process_gaps", "Times that a process fell behind what the others told.", value=self.gaps
        )

    def _by_process(self) -> Metric:
        counts = self._departed_served + Counter({number: _served(told[1]) for number, told in self._told.items()})
        counts[self._number] += _served(self._metrics.dump())
        shown = CounterMetricFamily("trieway_process_requests", "Requests ended, by process.", labels=["process"])
        for number, count in sorted(counts.items()):
            shown.add_metric([str(number)], count)
        return shown


def _served(requests: Sequence[Any]) -> int:
    """How many have ended of those that were so counted."""
    return sum(int(value) for _, value in requests[0])


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
