from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from loadtests.answer import Answer
from loadtests.chat_events import Usage, UsageDetails
from loadtests.load_request import LoadRequest
from loadtests.measures import ErrorKind
from loadtests.stream_client import ChatClient, client_session

REQUEST = LoadRequest(session_id="s", turn=0, arrival_s=0.0, messages=[{"role": "user", "content": "x"}], max_tokens=5)


@pytest.fixture
async def client(stub: Any) -> AsyncIterator[ChatClient]:
    async with client_session(timeout_s=5.0) as session:
        yield ChatClient(session, stub.url)


async def ask(client: ChatClient, *, stream: bool = True) -> Answer:
    return await client.call(REQUEST.body("stub-model", stream=stream), session_id="s")


async def test_the_body_and_headers_ask_for_usage_the_worker_and_the_session(stub: Any, client: ChatClient) -> None:
    await ask(client)
    body, headers = stub.seen[0]
    assert body == {
        "model": "stub-model",
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 5,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert (headers["x-trieway-explain"], headers["x-session-id"]) == ("1", "s")


async def test_a_stream_is_stamped_at_output_events_only(stub: Any) -> None:
    """The clock reads 0 when the call is sent, then 1, 2, ... as pieces come: role, text, text and reasoning, end."""
    pieces = [
        stub.sse(stub.delta(role="assistant", content=""), done=False),
        stub.sse(stub.delta(content="Hel"), done=False),
        stub.sse(stub.delta(content="lo"), stub.delta(reasoning_content="hm"), done=False),
        stub.sse({"choices": [{"delta": {}, "finish_reason": "stop"}]}, stub.usage(10, 3, 8)),
    ]
    readings: list[float] = []

    def clock() -> float:
        readings.append(float(len(readings)))
        return readings[-1]

    async def behave(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "x-trieway-worker": "w3"})
        await response.prepare(request)
        for read, piece in enumerate(pieces, start=2):
            await response.write(piece)
            while len(readings) < read:  # until the client has stamped this piece
                await asyncio.sleep(0)
        return response

    stub.behaviour = behave
    async with client_session(timeout_s=5.0) as session:
        answer = await ask(ChatClient(session, stub.url, clock=clock))
    assert answer == Answer(
        sent_s=0.0,
        ttft_s=2.0,
        gaps_s=(1.0, 0.0),
        e2e_s=5.0,
        text="Hello",
        usage=Usage(prompt_tokens=10, completion_tokens=3, prompt_tokens_details=UsageDetails(cached_tokens=8)),
        worker="w3",
    )


async def test_a_tool_call_counts_as_first_output(stub: Any, client: ChatClient) -> None:
    call = {"index": 0, "function": {"name": "f", "arguments": ""}}
    stub.behaviour = stub.stream(stub.sse(stub.delta(tool_calls=[call]), stub.usage(1, 1, None)))
    answer = await ask(client)
    assert answer.ttft_s is not None
    assert answer.cached_tokens is None


async def test_an_answer_that_is_not_streamed_has_text_and_usage_but_no_ttft(stub: Any, client: ChatClient) -> None:
    async def behave(_request: web.Request) -> web.Response:
        whole = {"choices": [{"message": {"role": "assistant", "content": "hi"}}], **stub.usage(3, 1, 2)}
        return web.json_response({**whole, "choices": [{"message": {"content": "hi"}}]})

    stub.behaviour = behave
    answer = await ask(client, stream=False)
    assert (answer.text, answer.ttft_s, answer.cached_tokens, answer.error) == ("hi", None, 2, None)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"error": {"message": "no such model", "type": "x"}}', "404 no such model"),
        (b'{"object": "error", "message": "bad", "code": 400}', "404 bad"),
        (b"<html>oops</html>", "404 <html>oops</html>"),
        (b"", "404 (empty body)"),
    ],
)
async def test_a_status_of_400_or_more_is_an_http_error(
    stub: Any, client: ChatClient, body: bytes, detail: str
) -> None:
    async def behave(_request: web.Request) -> web.Response:
        return web.Response(status=404, body=body)

    stub.behaviour = behave
    answer = await ask(client)
    assert (answer.error, answer.error_detail) == (ErrorKind.HTTP_STATUS, detail)


async def test_an_error_event_in_a_stream_is_a_stream_error(stub: Any, client: ChatClient) -> None:
    stub.behaviour = stub.stream(stub.sse(stub.delta(content="a"), {"error": {"message": "worker died"}}))
    answer = await ask(client)
    assert (answer.error, answer.error_detail) == (ErrorKind.STREAM_ERROR, "worker died")
    assert answer.ttft_s is not None


async def test_a_stream_without_done_is_truncated(stub: Any, client: ChatClient) -> None:
    stub.behaviour = stub.stream(stub.sse(stub.delta(content="a"), done=False))
    assert (await ask(client)).error is ErrorKind.TRUNCATED
    stub.behaviour = stub.stream(stub.sse(stub.delta(content="a"), done=False), cut=True)
    assert (await ask(client)).error is ErrorKind.TRUNCATED


async def test_an_event_that_is_no_json_is_a_protocol_error(stub: Any, client: ChatClient) -> None:
    stub.behaviour = stub.stream(stub.sse(b"{half"))
    assert (await ask(client)).error is ErrorKind.PROTOCOL


async def test_no_answer_is_a_connection_error_and_a_late_one_a_timeout(stub: Any) -> None:
    async def hang_up(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    stub.behaviour = hang_up
    async with client_session(timeout_s=5.0) as session:
        answer = await ask(ChatClient(session, stub.url))
        assert answer.error is ErrorKind.CONNECTION
        refused = await ask(ChatClient(session, "http://127.0.0.1:1"))
        assert refused.error is ErrorKind.CONNECTION
    async with client_session(timeout_s=1e-6) as session:
        assert (await ask(ChatClient(session, stub.url))).error is ErrorKind.TIMEOUT
