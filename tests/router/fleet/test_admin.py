"""The admin routes: list, add, drain, remove; bad input."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from router_fakes import DONE, STREAM_HEAD, Call, chunk, config, event, running, upstream

CHAT = "/v1/chat/completions"


async def test_a_worker_added_while_running_takes_requests(chat: dict[str, Any]) -> None:
    async with upstream() as one, running(config()) as router:
        refused = await router.client.post(CHAT, json=chat)
        added = await router.client.post("/workers", json={"url": one.url, "id": "gpu7"})
        await router.until(lambda all_: all_["gpu7"]["state"] == "ready")
        served = await router.client.post(CHAT, json=chat)

    assert refused.status_code == 503
    assert refused.json()["error"]["source"] == "router"
    assert added.status_code == 201
    assert served.status_code == 200


async def test_what_runs_on_a_removed_worker_finishes(chat: dict[str, Any]) -> None:
    go_on = asyncio.Event()

    async def script(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(event("a")))
        await writer.drain()
        await go_on.wait()
        writer.write(chunk(event("b")) + chunk(DONE) + b"0\r\n\r\n")

    async with upstream(script) as one, running(config(one.url)) as router:
        received = b""
        async with router.client.stream("POST", CHAT, json={**chat, "stream": True}) as reply:
            async for piece in reply.aiter_bytes():
                received += piece
                if not go_on.is_set():
                    (await router.client.delete("/workers/w1")).raise_for_status()
                    go_on.set()

    assert received == event("a") + event("b") + DONE


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b"", "JSON"),
        (b"[1]", "object"),
        (b'{"id": "x"}', "url"),
        (b'{"url": 5}', "url"),
        (b'{"url": "nope"}', "http://127.0.0.1:30000"),
        (b'{"url": "http://a", "id": ""}', "id"),
        (b'{"url": "http://a", "wieght": 1}', "wieght"),
    ],
)
async def test_a_bad_worker_is_refused_with_what_is_wrong(body: bytes, names: str) -> None:
    async with running(config()) as router:
        reply = await router.client.post("/workers", content=body)
        left = await router.workers()

    error = reply.json()["error"]
    assert reply.status_code == 400
    assert error["type"] == "invalid_request_error"
    assert names in error["message"]
    assert left == {}
