"""What probes and failed requests do to a worker's state."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from router.errors import WorkerUnreachable
from router.fleet import lost
from router.fleet.health import HealthMonitor
from router.fleet.registry import Registry
from router.fleet.vitals import HealthConfig
from router.fleet.worker import Worker
from router_fakes import Call, answer, config, running, upstream

QUICK = {"interval_s": 0.05, "retry_interval_s": 0.05, "timeout_s": 1.1}


async def test_a_worker_that_fails_probes_is_degraded_and_comes_back_when_it_answers() -> None:
    async with upstream() as worker, running(config(worker.url, health=QUICK)) as router:
        worker.health_status = 503
        seen = await router.until(lambda all_: all_["w1"]["state"] == "degraded")
        worker.health_status = 200
        await router.until(lambda all_: all_["w1"]["state"] == "ready")

    assert "503" in seen["w1"]["reason"]


async def test_one_failed_probe_changes_nothing() -> None:
    async with upstream() as worker:
        async with running(config(worker.url, health={**QUICK, "failures_to_degrade": 1_000_000})) as router:
            worker.health_status = 503
            await asyncio.sleep(0.5)
            state = (await router.workers())["w1"]["state"]

    assert state == "ready"


async def test_a_failed_request_makes_the_router_look_at_once(chat: dict[str, Any]) -> None:
    async def hang_up(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with upstream(hang_up) as worker:
        slow = {"interval_s": 3600.0, "retry_interval_s": 0.05, "failures_to_degrade": 1}
        async with running(config(worker.url, health=slow)) as router:
            worker.health_status = 500
            await router.client.post("/v1/chat/completions", json=chat)
            await router.until(lambda all_: all_["w1"]["state"] == "degraded")


async def test_a_worker_that_nobody_listens_for_is_not_ready_and_says_why() -> None:
    async with upstream() as worker:
        gone = worker.url
    async with running(config(gone, health=QUICK), ready=0) as router:
        seen = await router.until(lambda all_: "refused" in all_["w1"]["reason"])
        ready = await router.client.get("/ready")

    assert seen["w1"]["state"] == "starting"
    assert ready.status_code == 503
    assert ready.json()["error"]["code"] == "no_worker_ready"


@pytest.mark.parametrize("cause", [TimeoutError(), ConnectionRefusedError()])
async def test_a_probe_that_finds_no_connection_in_time_proves_nothing_and_one_that_is_refused_does(
    cause: OSError,
) -> None:
    async def get(worker: Worker, target: str, timeout_s: float) -> tuple[int, bytes]:
        raise WorkerUnreachable("no") from cause

    registry = Registry(lambda: 7.0)
    worker = registry.add("http://a", "a")
    async with httpx.AsyncClient() as client:
        monitor = HealthMonitor(HealthConfig(), registry, client, get, lambda work: work.close(), lambda: 7.0)
        await monitor.probe(worker)

    assert worker.vitals.refused == worker.was_unreachable == (not isinstance(cause, TimeoutError))


async def test_a_request_that_its_worker_loses_goes_to_another_while_the_first_goes_on_working(
    chat: dict[str, Any],
) -> None:
    """The worker answers probes, load reports (nothing running) and every other request: only the deadline of a
    first byte, ten minutes, would end the wait."""
    lost: list[Call] = []

    async def lose_the_first(call: Call, writer: asyncio.StreamWriter) -> None:
        if lost:
            await answer({"id": "one"})(call, writer)
        else:
            lost.append(call)
            await call.left()

    idle = {"dp_rank": 0, "num_running_reqs": 0, "num_waiting_reqs": 0, "num_used_tokens": 0}
    loads = answer({"loads": [{**idle, "max_total_num_tokens": 1000}]})
    async with upstream(lose_the_first) as one, upstream(answer({"id": "two"})) as two:
        one.gets["/v1/loads"] = loads
        settings = config(
            f"one={one.url}", f"two={two.url}", health={**QUICK, "stall_s": 0.2}, load={"interval_s": 0.05}
        )
        async with running(settings) as router:
            waiting = asyncio.ensure_future(router.client.post("/v1/chat/completions", json=chat))
            while not lost:
                await asyncio.sleep(0.01)
            while not waiting.done() or len(one.calls) == 1:
                await router.client.post("/v1/chat/completions", json=chat)
                await asyncio.sleep(0.01)
            answered = await waiting

    assert len(lost) == 1
    assert (answered.status_code, answered.json()["id"]) == (200, "two")


async def test_a_worker_that_seems_idle_and_answers_nothing_gets_nothing_more_while_others_do(
    chat: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before the request is given up: least in flight or lowest cost would send it all there."""
    monkeypatch.setattr(lost, "DOUBT_S", 0.1)
    swallowed = asyncio.Event()

    async def swallow(call: Call, writer: asyncio.StreamWriter) -> None:
        swallowed.set()
        await call.left()

    idle = {"dp_rank": 0, "num_running_reqs": 0, "num_waiting_reqs": 0, "num_used_tokens": 0}
    async with upstream(swallow) as one, upstream() as two:
        one.gets["/v1/loads"] = answer({"loads": [{**idle, "max_total_num_tokens": 1000}]})
        settings = config(f"one={one.url}", f"two={two.url}", load={"interval_s": 0.05})
        async with running(settings) as router, asyncio.timeout(20):
            waiting = [asyncio.ensure_future(router.client.post("/v1/chat/completions", json=chat)) for _ in range(2)]
            await swallowed.wait()
            in_a_row = 0
            while in_a_row < 10:
                calls = len(one.calls), len(two.calls) + 1
                waiting.append(asyncio.ensure_future(router.client.post("/v1/chat/completions", json=chat)))
                await asyncio.sleep(0.02)
                in_a_row = in_a_row + 1 if (len(one.calls), len(two.calls)) == calls else 0
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    assert len(one.calls) < len(two.calls)
