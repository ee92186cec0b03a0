"""Requests that wait at the router until a worker has room, over real connections and the default policy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from router_fakes import DEADLINE_S, Call, Running, answer, config, running, upstream

CHAT = "/v1/chat/completions"
LONG = "word " * 200_000
"""At the speed that is believed before any is learned, this takes many seconds."""
SETTINGS: dict[str, Any] = {"policy": "expected_ttft", "health": {"stall_s": 600.0}}


class Slow:
    """A worker that answers one request for every `go`; `order` has the texts as they came."""

    def __init__(self) -> None:
        self.go = asyncio.Semaphore(0)
        self.order: list[str] = []

    async def __call__(self, call: Call, writer: asyncio.StreamWriter) -> None:
        self.order.append(call.header("x-name") or "")
        await self.go.acquire()
        await answer({"id": "x", "choices": []})(call, writer)


def ask(router: Running, name: str, text: str) -> asyncio.Task[Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": f"{name} {text}"}], "stream": True}
    return asyncio.ensure_future(router.client.post(CHAT, json=body, headers={"x-name": name}))


async def until(holds: Callable[[dict[str, Any]], bool], router: Running) -> dict[str, Any]:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            seen: dict[str, Any] = (await router.client.get("/queue")).json()
            if holds(seen):
                return seen
            await asyncio.sleep(0.01)


async def occupied(router: Running) -> asyncio.Task[Any]:
    """The request that keeps the worker busy for long, by what is believed of it."""
    first = ask(router, "first", LONG)
    await until(lambda seen: seen["in_flight"] == 1, router)
    return first


def held(count: int) -> Callable[[dict[str, Any]], bool]:
    return lambda seen: seen["held"]["held"] == count and seen["in_flight"] >= count


async def test_what_would_wait_long_is_held_and_the_shortest_goes_first() -> None:
    slow = Slow()
    async with upstream(slow) as worker, running(config(worker.url, **SETTINGS)) as router:
        tasks = [ask(router, "first", LONG)]
        async with asyncio.timeout(DEADLINE_S):
            while not slow.order:
                await asyncio.sleep(0.01)
        for count, (name, text) in enumerate([("longer", LONG * 2), ("long", LONG), ("short", "hello")]):
            tasks.append(ask(router, name, text))
            await until(held(count + 1), router)
        seen = await until(held(3), router)
        before = list(slow.order)
        for _ in tasks:
            slow.go.release()
        done = [(await task) for task in tasks]
        metrics = (await router.client.get("/metrics")).text
        explained = (await router.client.get(f"/explain/{done[3].headers['x-request-id']}")).json()

    assert before == ["first"]
    assert list(seen["held"]["would_go_to"].values()) == [3]
    assert seen["held"]["oldest_s"] > 0
    assert [each.status_code for each in done] == [200] * 4
    assert slow.order == ["first", "short", "long", "longer"]
    assert "trieway_holds_total 3.0" in metrics
    assert "trieway_held_requests 0.0" in metrics
    assert explained["outcome"]["held_s"] > 0


async def test_a_client_that_leaves_while_held_costs_no_worker_anything() -> None:
    slow = Slow()
    async with upstream(slow) as worker, running(config(worker.url, **SETTINGS)) as router:
        first = await occupied(router)
        leaver, stayer = ask(router, "leaver", "hi"), ask(router, "stayer", "hello")
        await until(held(2), router)
        leaver.cancel()
        await until(held(1), router)
        slow.go.release()
        slow.go.release()
        statuses = [(await first).status_code, (await stayer).status_code]

    assert statuses == [200, 200]
    assert slow.order == ["first", "stayer"]


async def test_a_held_request_goes_to_a_worker_that_joins() -> None:
    slow = Slow()
    async with upstream(slow) as busy, upstream() as new, running(config(busy.url, **SETTINGS)) as router:
        first = await occupied(router)
        waits = ask(router, "waits", LONG)
        await until(held(1), router)
        await router.client.post("/workers", json={"url": new.url})
        status = (await waits).status_code
        slow.go.release()
        await first

    assert status == 200
    assert len(new.calls) == 1


async def test_a_request_that_is_due_is_sent_however_long_it_will_wait_there() -> None:
    slow = Slow()
    settings = SETTINGS | {"hold": {"patience": 0.0, "least_s": 0.2}}
    async with upstream(slow) as worker, running(config(worker.url, **settings)) as router:
        tasks = [await occupied(router)]
        tasks.append(ask(router, "due", LONG))
        async with asyncio.timeout(DEADLINE_S):
            while len(slow.order) < 2:
                await asyncio.sleep(0.01)
        for _ in tasks:
            slow.go.release()
        await asyncio.gather(*tasks)

    assert slow.order == ["first", "due"]


async def test_a_deadline_counts_for_the_held_too() -> None:
    """The worker says that others keep it busy for long: nothing of ours runs there, and nothing is sent."""
    busy = {
        "dp_rank": 0, "num_running_reqs": 1, "num_waiting_reqs": 9, "num_waiting_uncached_tokens": 10**8,
        "num_used_tokens": 0, "max_total_num_tokens": 10**6, "max_running_requests": 64, "token_usage": 0.0,
    }  # fmt: skip
    settings = SETTINGS | {"dispatch": {"total_timeout_s": 0.5}, "load": {"interval_s": 0.05}}
    async with upstream() as worker:
        worker.gets["/v1/loads"] = answer({"loads": [busy]})
        async with running(config(worker.url, **settings)) as router:
            await router.until(lambda seen: all((each["load"] or {}).get("waiting") for each in seen.values()))
            late = await ask(router, "late", LONG)

    assert late.json()["error"]["code"] == "deadline_exceeded"
    assert worker.calls == []


async def test_when_the_last_worker_leaves_the_held_hear_of_it() -> None:
    slow = Slow()
    async with upstream(slow) as worker, running(config(worker.url, **SETTINGS)) as router:
        first = await occupied(router)
        waits = ask(router, "waits", LONG)
        await until(held(1), router)
        [name] = await router.workers()
        await router.client.delete(f"/workers/{name}")
        answered = await waits
        slow.go.release()
        await first

    assert answered.status_code == 503
    assert answered.json()["error"]["code"] == "no_worker_ready"


async def test_without_room_to_watch_nothing_is_held() -> None:
    slow = Slow()
    settings = SETTINGS | {"policies": {"expected_ttft": {"room_s": 0.0}}}
    async with upstream(slow) as worker, running(config(worker.url, **settings)) as router:
        tasks = [ask(router, name, LONG) for name in ("a", "b", "c")]
        async with asyncio.timeout(DEADLINE_S):
            while len(slow.order) < 3:
                await asyncio.sleep(0.01)
        for _ in tasks:
            slow.go.release()
        await asyncio.gather(*tasks)

    assert sorted(slow.order) == ["a", "b", "c"]
