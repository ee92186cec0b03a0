"""Membership, eligibility and leases."""

from __future__ import annotations

import pytest

from router.errors import ConfigError, NoWorker, UnknownModel, UnknownWorker, WorkerExists
from router.fleet.registry import Registry, clean_url
from router.fleet.worker import WorkerState
from router.records import FleetEvent
from router.types import WorkerChanged, WorkerJoined, WorkerLeft


@pytest.fixture
def registry() -> Registry:
    return Registry(lambda: 0.0)


def ready(registry: Registry, url: str, *models: str) -> str:
    worker = registry.add(url)
    registry.set_state(worker, WorkerState.READY, "test")
    registry.set_models(worker, tuple({"id": model} for model in models))
    return worker.id


def test_a_ready_worker_is_preferred_to_one_that_starts(registry: Registry) -> None:
    registry.add("http://a:1")
    second = ready(registry, "http://b:1")

    assert [worker.id for worker in registry.eligible(None)] == [second]


def test_when_nobody_is_ready_a_starting_worker_is_better_than_refusing(registry: Registry) -> None:
    first = registry.add("http://a:1")

    assert registry.eligible(None) == (first,)


def test_a_draining_worker_gets_nothing_even_when_it_is_the_last(registry: Registry) -> None:
    worker = registry.get(ready(registry, "http://a:1"))
    registry.eligible(None)  # now cached
    registry.drain(worker)

    with pytest.raises(NoWorker):
        registry.eligible(None)


def test_a_draining_worker_never_becomes_ready_again(registry: Registry) -> None:
    worker = registry.get(ready(registry, "http://a:1"))
    registry.drain(worker)
    registry.set_state(worker, WorkerState.READY, "a late probe")

    assert worker.state is WorkerState.DRAINING


def test_workers_that_were_tried_are_left_out(registry: Registry) -> None:
    first, second = registry.get(ready(registry, "http://a:1")), registry.get(ready(registry, "http://b:1"))

    assert registry.eligible(None, [first.id]) == (second,)
    with pytest.raises(NoWorker):
        registry.eligible(None, [first.id, second.id])


def test_an_adapter_of_a_served_model_is_served(registry: Registry) -> None:
    worker = ready(registry, "http://a:1", "base")

    assert [each.id for each in registry.eligible("base:adapter")] == [worker]
    with pytest.raises(UnknownModel, match="base"):
        registry.eligible("other")


def test_names_invented_by_clients_do_not_fill_memory(registry: Registry) -> None:
    ready(registry, "http://a:1")  # says nothing of its models: serves any
    for i in range(5000):
        registry.eligible(f"model-{i}")

    assert len(registry._eligible) <= 1024


def test_ids_and_urls_are_unique(registry: Registry) -> None:
    registry.add("http://a:1/", "gpu0")

    with pytest.raises(WorkerExists):
        registry.add("http://a:1")
    with pytest.raises(WorkerExists):
        registry.add("http://b:1", "gpu0")


def test_a_generated_id_never_collides_with_a_given_one(registry: Registry) -> None:
    registry.add("http://a:1", "w1")

    assert registry.add("http://b:1").id == "w2"


def test_joining_and_leaving_are_told_once_each(registry: Registry) -> None:
    events: list[FleetEvent] = []
    registry.listen(events.append)
    worker = registry.add("http://a:1")
    registry.remove(worker)
    registry.remove(worker)

    assert events == [
        WorkerJoined(worker=worker.id, at_s=0.0),
        WorkerChanged(worker=worker.id, before="starting", after="gone", why="removed", at_s=0.0),
        WorkerLeft(worker=worker.id, at_s=0.0),
    ]
    with pytest.raises(UnknownWorker):
        registry.get(worker.id)


def test_a_listener_that_names_kinds_of_events_hears_no_others(registry: Registry) -> None:
    heard: list[str] = []
    registry.listen(lambda event: heard.append(type(event).__name__), WorkerLeft)
    registry.remove(registry.add("http://a:1"))
    registry.listen(lambda event: heard.append(type(event).__name__), WorkerJoined)
    registry.remove(registry.add("http://b:1"))

    assert heard == ["WorkerLeft", "WorkerJoined", "WorkerLeft"]


def test_a_lease_is_given_back_however_the_block_ends(registry: Registry) -> None:
    worker = registry.get(ready(registry, "http://a:1"))
    with registry.lease(worker):
        during = worker.in_flight
    with pytest.raises(UnknownWorker), registry.lease(worker):
        registry.get("nobody")

    assert during == 1
    assert worker.in_flight == 0


@pytest.mark.parametrize(
    "url", ["", "localhost:30000", "ftp://a", "http://", "http://a b", "http://a?x=1", "http://u:p@a", "http://a:99999"]
)
def test_what_is_no_worker_url_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ConfigError, match=r"http://127\.0\.0\.1:30000"):
        clean_url(url)


def test_a_trailing_slash_makes_no_second_worker() -> None:
    assert clean_url("http://a:1/") == clean_url("http://a:1") == "http://a:1"
