"""Load reports: whose they are, how old, and what falling counters mean."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from router.errors import WorkerUnreachable
from router.fleet.load import UNKNOWN_ROUTE_RETRY_S, LoadConfig, LoadMonitor, load_of
from router.fleet.registry import Registry
from router.fleet.worker import Worker
from router.records import FleetEvent
from router.types import CacheCleared, LoadReport, LoadReported, WorkerId
from router_fakes import answer, config, running, upstream

CORE: dict[str, Any] = {
    "dp_rank": 0,
    "num_running_reqs": 3,
    "num_waiting_reqs": 2,
    "num_waiting_uncached_tokens": 500,
    "num_used_tokens": 1000,
    "max_total_num_tokens": 5000,
    "max_running_requests": 64,
    "token_usage": 0.2,
}
REPORT = LoadReport(
    at_s=7.0, running=3, waiting=2, waiting_uncached_tokens=500, used_tokens=1000, capacity_tokens=5000,
    max_running=64, token_usage=0.2,
)  # fmt: skip


class Fleet:
    """One server that answers `reply`, polled by a monitor whose clock stands at 7 s."""

    def __init__(self, ranks: int = 1) -> None:
        self.reply: httpx.Response | None = None
        self.registry = Registry(lambda: 7.0)
        self.registry.add("http://a", "a")
        self.registry.set_ranks("http://a", ranks)
        self.events: list[FleetEvent] = []
        self.registry.listen(self.events.append)

    def loads(self, *loads: Any) -> None:
        self.reply = httpx.Response(200, json={"loads": loads})

    async def poll(self) -> float:
        async def get(worker: Worker, target: str, timeout_s: float) -> tuple[int, bytes]:
            if self.reply is None:
                raise WorkerUnreachable("refused")
            return self.reply.status_code, self.reply.content

        if not hasattr(self, "monitor"):
            self.monitor = LoadMonitor(LoadConfig(), self.registry, get, lambda: 7.0, lambda work: work.close())
        return await self.monitor.poll(self.registry.all()[0])


async def test_a_report_reaches_the_worker_and_every_listener() -> None:
    fleet = Fleet()
    fleet.loads(CORE)
    await fleet.poll()

    assert fleet.registry.get("a").load == REPORT
    assert fleet.events == [LoadReported(worker=WorkerId("a"), load=REPORT, at_s=7.0)]


async def test_each_rank_gets_its_own_report_and_unknown_ranks_nobody() -> None:
    fleet = Fleet(ranks=2)
    fleet.loads({**CORE, "dp_rank": 1, "num_running_reqs": 9}, CORE, {**CORE, "dp_rank": 2}, "odd")
    await fleet.poll()

    assert [(worker.id, worker.load and worker.load.running) for worker in fleet.registry.all()] == [
        ("a#0", 3),
        ("a#1", 9),
    ]
    assert len(fleet.events) == 2


async def test_a_count_that_falls_means_a_restart() -> None:
    fleet = Fleet()
    for prefilled in (10, 500, 500, 20, 30):
        fleet.loads({**CORE, "total_prefill_uncached_tokens": prefilled})
        await fleet.poll()

    assert [event for event in fleet.events if isinstance(event, CacheCleared)] == [
        CacheCleared(worker=WorkerId("a"), at_s=7.0)
    ]


@pytest.mark.parametrize(
    "reply",
    [None, httpx.Response(500), httpx.Response(200, text="x"), httpx.Response(200, json={}),
     httpx.Response(200, json={"loads": 3}), httpx.Response(200, json=[])],
)  # fmt: skip
async def test_a_server_that_fails_keeps_its_last_report(reply: httpx.Response | None) -> None:
    fleet = Fleet()
    fleet.loads(CORE)
    await fleet.poll()
    fleet.reply = reply

    assert await fleet.poll() == LoadConfig().interval_s
    assert fleet.registry.get("a").load == REPORT


async def test_a_server_without_the_route_is_asked_rarely() -> None:
    fleet = Fleet()
    fleet.reply = httpx.Response(404)

    assert await fleet.poll() == UNKNOWN_ROUTE_RETRY_S


@pytest.mark.parametrize(
    "odd",
    [{"num_running_reqs": -1}, {"num_waiting_reqs": None}, {"num_used_tokens": 2**50}, {"max_total_num_tokens": 0},
     {"num_running_reqs": True}, {"num_running_reqs": 1.5}],
)  # fmt: skip
def test_an_absurd_report_is_none(odd: dict[str, Any]) -> None:
    assert load_of({**CORE, **odd}, 0.0) is None


def test_what_a_report_can_do_without_is_unknown_when_odd() -> None:
    report = load_of({**CORE, "token_usage": 7, "num_waiting_uncached_tokens": "x"}, 0.0)

    assert report is not None
    assert (report.token_usage, report.waiting_uncached_tokens) == (None, None)


async def test_after_a_restart_between_two_probes_the_facts_are_read_again() -> None:
    async with upstream() as worker:
        worker.gets["/v1/loads"] = answer({"loads": [{**CORE, "total_prefill_uncached_tokens": 900}]})
        worker.gets["/server_info"] = answer({"version": "0.5.21"})
        quick = {"interval_s": 0.05, "retry_interval_s": 0.05}
        async with running(config(worker.url, load={"interval_s": 0.02}, health=quick)) as router:
            await router.until(lambda all_: all_["w1"]["load"] is not None)
            worker.gets["/server_info"] = answer({"version": "0.5.22"})
            worker.gets["/v1/loads"] = answer({"loads": [{**CORE, "total_prefill_uncached_tokens": 5}]})
            await router.until(lambda all_: all_["w1"]["version"] == "0.5.22")


async def test_a_running_router_polls_and_shows_load_and_age() -> None:
    async with upstream() as worker:
        worker.gets["/v1/loads"] = answer({"loads": [CORE]})
        async with running(config(worker.url, load={"interval_s": 0.02})) as router:
            seen = await router.until(lambda all_: all_["w1"]["load"] is not None)
            metrics = (await router.client.get("/metrics")).text

    load = seen["w1"]["load"]
    assert (load["running"], load["waiting"], seen["w1"]["capacity_tokens"]) == (3, 2, 5000)
    assert 0 <= load["age_s"] < 20
    assert 'trieway_worker_waiting_requests{worker="w1"} 2.0' in metrics
    assert 'trieway_worker_load_age_seconds{worker="w1"}' in metrics
