"""Answers too large to hold back pass through piece by piece, and a broken one is visibly broken."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from router.request.relay import WHOLE_BODY_BYTES
from router_fakes import Call, answer, config, running, upstream

CHAT = "/v1/chat/completions"
SIZE = WHOLE_BODY_BYTES + 1000


async def test_a_large_answer_passes_whole(chat: dict[str, Any]) -> None:
    body = b"[" + b"1," * (SIZE // 2) + b"1]"
    async with upstream(answer(body)) as worker, running(config(worker.url)) as router:
        reply = await router.client.post(CHAT, json=chat)

    assert reply.content == body


async def test_a_large_answer_that_breaks_off_breaks_off_for_the_client_too(chat: dict[str, Any]) -> None:
    async def cut(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {SIZE}\r\n\r\n".encode())
        writer.write(b" " * 1000)
        await writer.drain()
        writer.transport.abort()

    async with upstream(cut) as worker, running(config(worker.url)) as router:
        with pytest.raises(httpx.TransportError):
            await router.client.post(CHAT, json=chat)
        metrics = (await router.client.get("/metrics")).text

    assert 'error="stream_cut"' in metrics
