"""Gauges of the fleet: state, requests, load as workers report it, and what is remembered of their caches.

Read from the registry when Prometheus asks, so that they can never drift from the truth. Called by telemetry.metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from router.clock import Clock
from router.fleet.registry import Registry
from router.fleet.worker import WorkerState
from router.types import LoadReport, WorkerId

IndexBlocks = Callable[[], Mapping[WorkerId, int]]
"""Blocks in the policy's prefix index, per worker."""
Lookups = Callable[[], Mapping[str, int]]
"""Exact lookups so far, by result."""

LOADS: tuple[tuple[str, str, Callable[[LoadReport], float | None]], ...] = (
    ("trieway_worker_running_requests", "Requests running, as the worker last reported.", lambda load: load.running),
    ("trieway_worker_waiting_requests", "Requests waiting, as the worker last reported.", lambda load: load.waiting),
    ("trieway_worker_waiting_uncached_tokens", "Prompt tokens yet to be computed, as the worker last reported.",
     lambda load: load.waiting_uncached_tokens),
    ("trieway_worker_used_tokens", "KV cache tokens in use, as the worker last reported.",
     lambda load: load.used_tokens),
    ("trieway_worker_capacity_tokens", "KV cache tokens there are, as the worker last reported.",
     lambda load: load.capacity_tokens),
)  # fmt: skip


class FleetCollector(Collector):
    """All gauges of one fleet."""

    def __init__(self, fleet: Registry, clock: Clock, index_blocks: IndexBlocks, lookups: Lookups) -> None:
        self._fleet = fleet
        self._clock = clock
        self._index_blocks = index_blocks
        self._lookups = lookups

    def collect(self) -> Iterator[Metric]:
        in_flight = GaugeMetricFamily("trieway_in_flight_requests", "Requests on a worker now.", labels=["worker"])
        state = GaugeMetricFamily("trieway_worker_state", "1 for the state a worker is in.", labels=["worker", "state"])
        for worker in self._fleet.all():
            in_flight.add_metric([worker.id], worker.in_flight)
            for each in WorkerState:
                state.add_metric([worker.id, each.value], float(worker.state is each))
        yield in_flight
        yield state
        yield from self._loads()
        stored = GaugeMetricFamily(
            "trieway_index_blocks", "Prompt blocks that the policy remembers of a worker.", labels=["worker"]
        )
        for name, blocks in self._index_blocks().items():
            stored.add_metric([name], blocks)
        yield stored
        yield from self._kv_events()

    def _kv_events(self) -> Iterator[Metric]:
        feeds = [(worker.id, worker.kv_feed) for worker in self._fleet.all() if worker.kv_feed is not None]
        usable = GaugeMetricFamily(
            "trieway_kv_events_usable", "1 while the worker's KV events are complete and followed.", labels=["worker"]
        )
        gaps = CounterMetricFamily(
            "trieway_kv_event_gaps", "Times that KV events were lost for good.", labels=["worker"]
        )
        blocks = GaugeMetricFamily(
            "trieway_kv_index_blocks", "Marked blocks that the worker holds by its KV events.", labels=["worker"]
        )
        for name, feed in feeds:
            usable.add_metric([name], float(feed.usable))
            gaps.add_metric([name], feed.gaps)
            blocks.add_metric([name], feed.blocks)
        lookups = CounterMetricFamily(
            "trieway_exact_lookups", "Prompts looked up in the exact index, by what came of it.", labels=["result"]
        )
        for result, count in self._lookups().items():
            lookups.add_metric([result], count)
        yield from (usable, gaps, blocks, lookups)

    def _loads(self) -> Iterator[Metric]:
        loads = [(worker.id, worker.load) for worker in self._fleet.all() if worker.load is not None]
        for name, about, read in LOADS:
            gauge = GaugeMetricFamily(name, about, labels=["worker"])
            for worker_id, load in loads:
                value = read(load)
                if value is not None:
                    gauge.add_metric([worker_id], value)
            yield gauge
        age = GaugeMetricFamily(
            "trieway_worker_load_age_seconds", "How old the worker's last load report is.", labels=["worker"]
        )
        now_s = self._clock()
        for worker_id, load in loads:
            age.add_metric([worker_id], now_s - load.at_s)
        yield age
