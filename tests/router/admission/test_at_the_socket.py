"""Overload, deadlines, stalls and trials as clients see them, over real connections."""

from __future__ import annotations

import asyncio
from typing import Any

from router_fakes import STREAM_HEAD, Call, answer, chunk, config, event, running, upstream

CHAT = "/v1/chat/completions"
QUICK = {"interval_s": 0.05, "retry_interval_s": 0.05, "timeout_s": 1.1, "connect_interval_s": 0.05}


class Held:
    """A worker that answers when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.order: list[str] = []

    async def __call__(self, call: Call, writer: asyncio.StreamWriter) -> None:
        self.order.append(call.header("authorization") or "")
        await self.go.wait()
        await answer({"id": "x", "choices": []})(call, writer)


async def until(holds: Any) -> None:
    async with asyncio.timeout(20):
        while not await holds():
            await asyncio.sleep(0.01)


async def test_what_finds_no_room_waits_visibly_and_what_finds_no_place_is_refused(chat: dict[str, Any]) -> None:
    held = Held()
    limits = {"max_in_flight": 1, "max_waiting": 2}
    async with upstream(held) as worker, running(config(worker.url, admission=limits)) as router:

        async def queue() -> dict[str, Any]:
            found: dict[str, Any] = (await router.client.get("/queue")).json()
            return found

        tasks = []
        for there in (1, 2, 3):
            tasks.append(asyncio.ensure_future(router.client.post(CHAT, json=chat)))
            await until(lambda there=there: _has(queue, there))
        seen = await queue()
        refused = await router.client.post(CHAT, json=chat)
        held.go.set()
        done = [(await task).status_code for task in tasks]
        metrics = (await router.client.get("/metrics")).text

    assert (seen["in_flight"], seen["waiting"], seen["room"]) == (1, 2, 1)
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "queue_full"
    assert int(refused.headers["retry-after"]) >= 1
    assert done == [200, 200, 200]
    assert 'trieway_queue_refused_total{error="queue_full"} 1.0' in metrics
    assert "trieway_queue_running_requests 0.0" in metrics


async def _has(queue: Any, count: int) -> bool:
    found = await queue()
    return bool(found["in_flight"] + found["waiting"] == count)


async def test_a_flood_from_one_key_does_not_hold_up_another(chat: dict[str, Any]) -> None:
    held = Held()
    async with upstream(held) as worker, running(config(worker.url, admission={"max_in_flight": 1})) as router:

        async def queue() -> dict[str, Any]:
            found: dict[str, Any] = (await router.client.get("/queue")).json()
            return found

        tasks = []
        for count, key in enumerate(["flood"] * 8 + ["small"], 1):
            headers = {"authorization": key}
            tasks.append(asyncio.ensure_future(router.client.post(CHAT, json=chat, headers=headers)))
            await until(lambda count=count: _has(queue, count))
        held.go.set()
        await asyncio.gather(*tasks)

    assert held.order.index("small") <= 2


async def test_a_client_that_leaves_the_queue_frees_its_place(chat: dict[str, Any]) -> None:
    held = Held()
    async with upstream(held) as worker, running(config(worker.url, admission={"max_in_flight": 1})) as router:

        async def queue() -> dict[str, Any]:
            found: dict[str, Any] = (await router.client.get("/queue")).json()
            return found

        first = asyncio.ensure_future(router.client.post(CHAT, json=chat))
        await until(lambda: _has(queue, 1))
        leaves = asyncio.ensure_future(router.client.post(CHAT, json=chat))
        await until(lambda: _has(queue, 2))
        leaves.cancel()
        await until(lambda: _has(queue, 1))
        held.go.set()
        status = (await first).status_code

    assert status == 200
    assert len(worker.calls) == 1


async def test_waiting_too_long_is_refused_and_says_which_limit(chat: dict[str, Any]) -> None:
    held = Held()
    limits = {"max_in_flight": 1, "max_wait_s": 0.05}
    async with upstream(held) as worker, running(config(worker.url, admission=limits)) as router:
        first = asyncio.ensure_future(router.client.post(CHAT, json=chat))
        await until(lambda: _called(worker, 1))
        late = await router.client.post(CHAT, json=chat)
        held.go.set()
        await first

    assert late.status_code == 503
    assert "admission.max_wait_s" in late.json()["error"]["message"]


async def _called(worker: Any, count: int) -> bool:
    return len(worker.calls) >= count


async def test_the_total_deadline_ends_a_request_before_and_after_its_first_byte(chat: dict[str, Any]) -> None:
    async def dawdle(call: Call, writer: asyncio.StreamWriter) -> None:
        if b'"stream":true' in call.body.replace(b" ", b""):
            writer.write(STREAM_HEAD + chunk(event("a")))
            await writer.drain()
        await call.left()

    async with upstream(dawdle) as worker:
        async with running(config(worker.url, dispatch={"total_timeout_s": 0.3})) as router:
            whole = await router.client.post(CHAT, json=chat)
            stream = await router.client.post(CHAT, json={**chat, "stream": True})

    assert whole.status_code == 504
    assert whole.json()["error"]["code"] == "deadline_exceeded"
    assert "dispatch.total_timeout_s" in whole.json()["error"]["message"]
    assert stream.text.count("data: ") == 2
    assert "deadline_exceeded" in stream.text


async def test_what_waits_on_a_worker_that_hangs_is_answered_by_another(chat: dict[str, Any]) -> None:
    idle = {
        "dp_rank": 0, "num_running_reqs": 0, "num_waiting_reqs": 0, "num_used_tokens": 0, "max_total_num_tokens": 9,
    }  # fmt: skip

    async def hang(call: Call, writer: asyncio.StreamWriter) -> None:
        await call.left()

    async with upstream(hang) as stuck, upstream() as well:
        stuck.gets["/v1/loads"] = answer({"loads": [idle]})
        settings = config(stuck.url, well.url, health={**QUICK, "stall_s": 0.3}, load={"interval_s": 0.05})
        async with running(settings) as router:
            replies = await asyncio.gather(*(router.client.post(CHAT, json=chat) for _ in range(6)))
            seen = await router.workers()
            history = (await router.client.get("/workers/w1")).json()["history"]

    assert [reply.status_code for reply in replies] == [200] * 6
    assert len(stuck.calls) >= 1
    assert seen["w1"]["state"] == "degraded"
    assert any("health.stall_s" in change["reason"] for change in history)


async def test_a_worker_that_only_fails_requests_is_taken_out_and_comes_back(chat: dict[str, Any]) -> None:
    async with upstream(answer({"message": "broken"}, 500)) as broken, upstream() as well:
        quick = {"open_s": 0.05, "trials_to_close": 1}
        async with running(config(broken.url, well.url, health=QUICK, breaker=quick)) as router:
            statuses = []
            while (await router.workers())["w1"]["state"] == "ready":
                statuses.append((await router.client.post(CHAT, json=chat)).status_code)
            broken.script = answer({"id": "x", "choices": []})

            async def back() -> bool:
                statuses.append((await router.client.post(CHAT, json=chat)).status_code)
                return bool((await router.workers())["w1"]["state"] == "ready")

            await until(back)

    assert set(statuses) == {200}
    assert len(statuses) >= 5


async def test_a_dead_worker_is_noticed_without_any_request(chat: dict[str, Any]) -> None:
    async with upstream() as well:
        async with upstream() as dies:
            async with running(
                config(dies.url, well.url, health={"interval_s": 3600.0, "connect_interval_s": 0.05})
            ) as router:
                await dies.close()
                seen = await router.until(lambda all_: all_["w1"]["state"] == "degraded")

    assert "refused" in seen["w1"]["reason"]
