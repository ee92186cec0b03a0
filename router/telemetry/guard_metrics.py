"""Metrics of what keeps the fleet and the queue in order: changes of state, breakers, the queue, refusals, retries,
requests held until a worker has room.

Read from their owners when Prometheus asks; only changes of state are counted here. Called by app. No label holds a
client's name or key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from router.admission.admission import Admission
from router.admission.hold import Hold
from router.admission.retry import RetryBudget
from router.fleet.registry import Registry
from router.records import FleetEvent
from router.types import WorkerChanged, WorkerId, WorkerLeft


class GuardCollector(Collector):
    """`observe` listens to fleet events. `reloads` counts reloads of the configuration by result."""

    def __init__(self, fleet: Registry, admission: Admission, retries: RetryBudget, hold: Hold) -> None:
        self._fleet = fleet
        self._admission = admission
        self._retries = retries
        self._hold = hold
        self._changes: Counter[tuple[WorkerId, str, str]] = Counter()
        self.reloads: Counter[str] = Counter({"applied": 0, "refused": 0})

    def observe(self, event: FleetEvent) -> None:
        match event:
            case WorkerChanged():
                self._changes[event.worker, event.before, event.after] += 1
            case WorkerLeft():
                for key in [key for key in self._changes if key[0] == event.worker]:
                    del self._changes[key]
            case _:
                pass

    def reloaded(self, result: str) -> None:
        """A reload of the configuration was "applied" or "refused"."""
        self.reloads[result] += 1

    def collect(self) -> Iterator[Metric]:
        changes = CounterMetricFamily(
            "trieway_worker_state_changes", "Changes of a worker's state.", labels=["worker", "before", "after"]
        )
        for (worker, before, after), count in self._changes.items():
            changes.add_metric([worker, before, after], count)
        breakers = GaugeMetricFamily(
            "trieway_worker_breaker_state", "1 while failed requests keep a worker out.", labels=["worker"]
        )
        for each in self._fleet.all():
            breakers.add_metric([each.id], float(not each.vitals.breaker.closed))
        yield from (changes, breakers)
        yield from self._queue()
        reloads = CounterMetricFamily(
            "trieway_config_reloads", "Reloads of the configuration, by what came of it.", labels=["result"]
        )
        for result, count in self.reloads.items():
            reloads.add_metric([result], count)
        yield reloads

    def _queue(self) -> Iterator[Metric]:
        queue = self._admission.queue
        for name, about, value in (
            ("trieway_queue_waiting_requests", "Requests that wait for room.", queue.waiting),
            ("trieway_queue_running_requests", "Requests let in and not yet ended.", queue.running),
            ("trieway_queue_room_requests", "Requests that may be in at once.", self._admission.room),
            ("trieway_held_requests", "Requests held until a worker has room.", self._hold.queue.size),
            ("trieway_retry_budget_requests", "Retries that could be made now.", self._retries.left),
        ):
            yield GaugeMetricFamily(name, about, value=value)
        waited_s = self._admission.waited_s
        yield CounterMetricFamily("trieway_queue_wait_seconds", "Time requests let in have waited.", value=waited_s)
        yield CounterMetricFamily("trieway_queue_waited", "Requests let in that waited.", value=self._admission.waited)
        yield CounterMetricFamily("trieway_hold_seconds", "Time requests were held for.", value=self._hold.held_s)
        yield CounterMetricFamily("trieway_holds", "Requests that were held and are no more.", value=self._hold.held)
        refused = CounterMetricFamily(
            "trieway_queue_refused", "Requests refused by limits of the queue or their key.", labels=["error"]
        )
        for code, count in self._admission.refused.items():
            refused.add_metric([code], count)
        yield refused
        yield CounterMetricFamily(
            "trieway_retries_refused", "Retries not made because the budget was used up.", value=self._retries.refused
        )
