"""A stored response is continued, shown and cancelled where it was made."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from router.fleet.response_homes import MAX_ID_CHARS, ResponseHomes
from router.request.usage import response_id_of
from router_fakes import STREAM_HEAD, Call, Script, answer, chunk, config, running, upstream

RESPONSES = "/v1/responses"


def maker(prefix: str) -> Script:
    """Answers with a response object whose id counts up, streamed when asked."""
    made = 0

    async def script(call: Call, writer: asyncio.StreamWriter) -> None:
        nonlocal made
        made += 1
        shown = {"id": f"resp_{prefix}{made}", "object": "response", "output": []}
        if not call.body or not json.loads(call.body).get("stream"):
            await answer(shown)(call, writer)
            return
        events = (("response.created", shown), ("response.completed", shown))
        frames = [f"event: {name}\ndata: {json.dumps({'type': name, 'response': body})}\n\n" for name, body in events]
        writer.write(STREAM_HEAD + b"".join(chunk(frame.encode()) for frame in frames) + b"0\r\n\r\n")

    return script


@pytest.mark.parametrize("stream", [False, True])
async def test_a_continuation_goes_where_the_response_was_made(stream: bool) -> None:
    async with upstream(maker("a")) as one, upstream(maker("b")) as two:
        async with running(config(one.url, two.url)) as router:
            for _ in range(2):
                await router.client.post(RESPONSES, json={"input": "x", "stream": stream})
            for previous in ("resp_b1", "resp_b2", "resp_b3", "resp_a1"):
                body = {"input": "y", "previous_response_id": previous, "stream": stream}
                await router.client.post(RESPONSES, json=body)
            await router.client.post(f"{RESPONSES}/resp_b2/cancel")

    assert [json.loads(call.body).get("previous_response_id") for call in one.calls] == [None, "resp_a1"]
    assert [call.path for call in two.calls] == [RESPONSES] * 4 + [f"{RESPONSES}/resp_b2/cancel"]


async def test_when_its_server_fails_no_other_is_asked_in_its_place() -> None:
    async with upstream(maker("a")) as one, upstream(maker("b")) as two:
        async with running(config(one.url, two.url)) as router:
            for _ in range(2):
                await router.client.post(RESPONSES, json={"input": "x"})
            one.script = answer({"message": "busy"}, 503)
            refused = await router.client.post(RESPONSES, json={"input": "y", "previous_response_id": "resp_a1"})

            async def hang_up(call: Call, writer: asyncio.StreamWriter) -> None:
                writer.transport.abort()

            one.script = hang_up
            broken = await router.client.post(RESPONSES, json={"input": "y", "previous_response_id": "resp_a1"})

    assert (refused.status_code, refused.json()) == (503, {"message": "busy"})
    assert (broken.status_code, broken.json()["error"]["code"]) == (502, "worker_hung_up")
    assert len(two.calls) == 1


async def test_an_unknown_response_is_anybodys() -> None:
    async with upstream(maker("a")) as one, running(config(one.url)) as router:
        reply = await router.client.post(RESPONSES, json={"input": "y", "previous_response_id": "resp_old"})

    assert reply.status_code == 200


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    homes = ResponseHomes(capacity=2)
    for name in ("1", "2", "1", "3", "x" * (MAX_ID_CHARS + 1)):
        homes.made(name, "w")

    assert [homes.home(name) for name in ("1", "2", "3")] == ["w", None, "w"]


@pytest.mark.parametrize(
    ("data", "found"),
    [(b'{"id": "resp_1"}', "resp_1"), (b'event: x\ndata: {"response": {"id": "resp_1"}}\n\n', "resp_1"),
     (b"{}", None), (b"", None), (b"{nope", None), (b'data: {"response": null}\n\n', None)],
)  # fmt: skip
def test_the_id_is_found_in_answers_and_streams(data: bytes, found: Any) -> None:
    assert response_id_of(data) == found
