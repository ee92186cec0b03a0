"""Gauges say what the registry and the policy say at that moment, and nothing of workers that left."""

from __future__ import annotations

from router.fleet.kv_feed import FeedState
from router.fleet.registry import Registry
from router.telemetry.backlog import Backlog
from router.telemetry.metrics import Metrics
from router.types import LoadReport, WorkerId


def test_load_feeds_and_memory_of_each_worker_are_shown() -> None:
    registry = Registry(lambda: 0.0)
    worker = registry.add("http://a", "a")
    registry.add("http://b", "b")
    load = LoadReport(
        at_s=7.0, running=3, waiting=2, waiting_uncached_tokens=None, used_tokens=10, capacity_tokens=100
    )
    registry.report_load(worker, load)
    worker.kv_feed = FeedState(connected=True, heard=True, gaps=2, blocks=9)
    metrics = Metrics(registry, Backlog(), lambda: 10.0, lambda: {WorkerId("a"): 5}, lambda: {"known": 4})

    text = metrics.render().decode()

    for line in (
        'trieway_worker_running_requests{worker="a"} 3.0',
        'trieway_worker_waiting_requests{worker="a"} 2.0',
        'trieway_worker_used_tokens{worker="a"} 10.0',
        'trieway_worker_capacity_tokens{worker="a"} 100.0',
        'trieway_worker_load_age_seconds{worker="a"} 3.0',
        'trieway_index_blocks{worker="a"} 5.0',
        'trieway_kv_events_usable{worker="a"} 1.0',
        'trieway_kv_event_gaps_total{worker="a"} 2.0',
        'trieway_kv_index_blocks{worker="a"} 9.0',
        'trieway_exact_lookups_total{result="known"} 4.0',
        'trieway_worker_state{state="starting",worker="b"} 1.0',
    ):
        assert line in text.splitlines()
    assert 'trieway_worker_waiting_uncached_tokens{worker="a"}' not in text
    assert 'trieway_worker_running_requests{worker="b"}' not in text

    registry.remove(worker)
    assert 'worker="a"' not in metrics.render().decode().replace('trieway_index_blocks{worker="a"} 5.0', "")
