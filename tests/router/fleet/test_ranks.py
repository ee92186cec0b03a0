"""Data-parallel ranks of one server are workers of their own, addressed one by one and controlled together."""

from __future__ import annotations

import json
from typing import Any

from router.fleet.registry import Registry
from router.fleet.worker import WorkerState
from router.records import FleetEvent
from router.types import WorkerChanged, WorkerJoined, WorkerLeft
from router_fakes import answer, config, running, upstream

CHAT = "/v1/chat/completions"
INFO = {"version": "0.5.21", "dp_size": 2}
QUICK = {"interval_s": 0.05, "retry_interval_s": 0.05, "failures_to_degrade": 1}


async def test_a_server_with_two_ranks_becomes_two_workers_that_get_their_own_requests(chat: dict[str, Any]) -> None:
    async with upstream() as server:
        server.gets["/server_info"] = answer(INFO)
        async with running(config(f"gpu={server.url}"), ready=2) as router:
            seen = await router.workers()
            explain = {"x-trieway-explain": "1"}
            replies = [await router.client.post(CHAT, json=chat, headers=explain) for _ in range(4)]
            await router.client.post("/generate", json={"text": "x"}, headers=explain)
            flushed = await router.client.post("/flush_cache")

    assert [(each["id"], each["server"], each["rank"]) for each in seen.values()] == [
        ("gpu#0", "gpu", 0),
        ("gpu#1", "gpu", 1),
    ]
    names = [reply.headers["x-trieway-worker"] for reply in replies]
    assert sorted(names) == ["gpu#0", "gpu#0", "gpu#1", "gpu#1"]
    assert [f"gpu#{call.header('x-data-parallel-rank')}" for call in server.calls[:4]] == names
    generate = server.calls[4]
    assert f"{json.loads(generate.body)['routed_dp_rank']}" == generate.header("x-data-parallel-rank")
    assert flushed.headers["x-trieway-worker"] == "gpu"
    assert [call.path for call in server.calls[5:]] == ["/flush_cache"]


async def test_a_clients_own_rank_header_does_not_overrule_the_routers(chat: dict[str, Any]) -> None:
    async with upstream() as server:
        server.gets["/server_info"] = answer(INFO)
        async with running(config(server.url), ready=2) as router:
            headers = {"x-trieway-explain": "1", "x-data-parallel-rank": "9"}
            reply = await router.client.post(CHAT, json=chat, headers=headers)

    assert f"w1#{server.calls[0].header('x-data-parallel-rank')}" == reply.headers["x-trieway-worker"]


async def test_all_ranks_fall_and_rise_together_and_a_restart_can_change_their_number(chat: dict[str, Any]) -> None:
    async with upstream() as server:
        server.gets["/server_info"] = answer(INFO)
        async with running(config(server.url, health=QUICK), ready=2) as router:
            server.health_status = 503
            await router.until(lambda all_: {each["state"] for each in all_.values()} == {"degraded"})
            server.gets["/server_info"] = answer({**INFO, "dp_size": 1})
            server.health_status = 200
            seen = await router.until(lambda all_: {each["state"] for each in all_.values()} == {"ready"})

    assert list(seen) == ["w1"]


async def test_ranks_stay_one_worker_when_told_so() -> None:
    async with upstream() as server:
        server.gets["/server_info"] = answer(INFO)
        async with running(config(server.url, health={"expand_ranks": False})) as router:
            seen = await router.workers()

    assert list(seen) == ["w1"]


async def test_a_server_is_drained_and_removed_by_its_name_and_a_rank_by_its_own() -> None:
    async with upstream() as server:
        server.gets["/server_info"] = answer(INFO)
        async with running(config(f"gpu={server.url}"), ready=2) as router:
            shown = [await router.client.get(f"/workers/{name}") for name in ("gpu", "gpu%230", "gpu2")]
            one = await router.client.post("/workers/gpu%231/drain")
            seen = await router.workers()
            both = await router.client.delete("/workers/gpu")
            left = await router.workers()

    assert [each["id"] for each in shown[0].json()["workers"]] == ["gpu#0", "gpu#1"]
    assert (shown[1].json()["id"], shown[2].status_code) == ("gpu#0", 404)
    assert one.json()["id"] == "gpu#1"
    assert [each["state"] for each in seen.values()] == ["ready", "draining"]
    assert [each["state"] for each in both.json()["workers"]] == ["gone", "gone"]
    assert left == {}


def test_what_joins_and_leaves_is_told_and_a_draining_server_stays_so() -> None:
    registry = Registry(lambda: 0.0)
    events: list[FleetEvent] = []
    worker = registry.add("http://a", "a", headers=[("authorization", "k")])
    registry.drain(worker)
    registry.listen(events.append)

    registry.set_ranks("http://a", 2)
    registry.set_ranks("http://a", 2)
    registry.set_ranks("http://unknown", 2)

    assert [event for event in events if not isinstance(event, WorkerChanged)] == [
        WorkerLeft(worker=worker.id, at_s=0.0),
        *(WorkerJoined(worker=each.id, at_s=0.0) for each in registry.all()),
    ]
    assert [each.state for each in registry.all()] == [WorkerState.DRAINING] * 2
    assert [dict(each.extra_headers) for each in registry.all()] == [
        {"authorization": "k", "x-data-parallel-rank": str(rank)} for rank in (0, 1)
    ]


def test_an_event_told_while_another_is_told_comes_after_it_for_every_listener() -> None:
    registry = Registry(lambda: 0.0)
    seen: list[tuple[str, str]] = []

    def first(event: FleetEvent) -> None:
        seen.append(("first", type(event).__name__))
        if isinstance(event, WorkerJoined):
            registry.cache_cleared(registry.get(event.worker))

    registry.listen(first)
    registry.listen(lambda event: seen.append(("second", type(event).__name__)))
    registry.add("http://a")

    assert seen == [
        ("first", "WorkerJoined"),
        ("second", "WorkerJoined"),
        ("first", "CacheCleared"),
        ("second", "CacheCleared"),
    ]
