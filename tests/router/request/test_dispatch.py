"""What one request does to workers and clients: forwarding, retries, cut streams, clients that leave."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from pathlib import Path
from typing import Any

import httpx
import pytest

import router as package
from router.request.exact import ExactMatch, ExactMatcher
from router_fakes import DONE, STREAM_HEAD, Call, answer, chunk, config, event, running, upstream

CHAT = "/v1/chat/completions"


async def test_a_body_reaches_the_worker_byte_for_byte_and_headers_lose_only_what_concerns_one_connection() -> None:
    body = b'{ "messages":[{"role":"user","content":"\\u00e9  x"}],"model":"m" , "unknown_field": {"a":1.50}}'
    async with upstream() as worker, running(config(worker.url)) as router:
        reply = await router.client.post(
            f"{CHAT}?a=b%20c",
            content=body,
            headers={"x-custom": "kept", "connection": "keep-alive, x-hop", "x-hop": "1", "te": "trailers"},
        )

    [call] = worker.calls
    assert call.body == body
    assert call.target == f"{CHAT}?a=b%20c"
    assert call.header("x-custom") == "kept"
    assert call.header("x-hop") is None
    assert call.header("te") is None
    assert call.header("x-request-id") == reply.headers["x-request-id"]


async def test_the_clients_request_id_is_kept_and_an_absurd_one_is_replaced(chat: dict[str, Any]) -> None:
    async with upstream() as worker, running(config(worker.url)) as router:
        kept = await router.client.post(CHAT, json=chat, headers={"x-request-id": "mine-1"})
        replaced = await router.client.post(CHAT, json=chat, headers={"x-request-id": "x" * 2000})

    assert kept.headers["x-request-id"] == "mine-1"
    assert replaced.headers["x-request-id"].startswith("req-")
    assert [call.header("x-request-id") for call in worker.calls] == ["mine-1", replaced.headers["x-request-id"]]


async def test_the_workers_answer_and_its_headers_come_back_as_they_are(chat: dict[str, Any]) -> None:
    script = answer(b'{"odd" : 1}', 200, "x-worker-says: hello\r\nset-cookie: a=b\r\nset-cookie: c=d\r\n")
    async with upstream(script) as worker, running(config(worker.url)) as router:
        reply = await router.client.post(CHAT, json=chat)

    assert reply.content == b'{"odd" : 1}'
    assert reply.headers["x-worker-says"] == "hello"
    assert reply.headers.get_list("set-cookie") == ["a=b", "c=d"]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_worker_that_refuses_is_passed_over(status: int, chat: dict[str, Any]) -> None:
    async with upstream(answer({"error": 1}, status)) as bad, upstream() as good:
        async with running(config(bad.url, good.url)) as router:
            replies = [await router.client.post(CHAT, json=chat) for _ in range(4)]

    assert [reply.status_code for reply in replies] == [200] * 4
    assert bad.calls
    assert len(good.calls) == 4


async def test_when_every_worker_refuses_the_last_refusal_is_handed_on_whole(chat: dict[str, Any]) -> None:
    script = answer({"message": "queue full"}, 503, "retry-after: 7\r\n")
    async with upstream(script) as one, upstream(script) as two, running(config(one.url, two.url)) as router:
        reply = await router.client.post(CHAT, json=chat)

    assert reply.status_code == 503
    assert reply.json() == {"message": "queue full"}
    assert reply.headers["retry-after"] == "7"
    assert len(one.calls) + len(two.calls) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422])
async def test_an_answer_that_blames_the_client_is_never_retried(status: int, chat: dict[str, Any]) -> None:
    script = answer({"message": "your fault"}, status)
    async with upstream(script) as one, upstream(script) as two, running(config(one.url, two.url)) as router:
        reply = await router.client.post(CHAT, json=chat)

    assert reply.status_code == status
    assert reply.json() == {"message": "your fault"}
    assert len(one.calls) + len(two.calls) == 1


async def test_a_connection_that_breaks_before_the_first_byte_is_retried_elsewhere(chat: dict[str, Any]) -> None:
    async def hang_up(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with upstream(hang_up) as bad, upstream() as good:
        async with running(config(bad.url, good.url)) as router:
            replies = [await router.client.post(CHAT, json=chat) for _ in range(2)]

    assert [reply.status_code for reply in replies] == [200, 200]


async def test_headers_without_a_body_are_not_a_first_byte(chat: dict[str, Any]) -> None:
    async def head_only(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        await writer.drain()
        writer.transport.close()

    async with upstream(head_only) as bad, upstream(answer(b"{}")) as good:
        async with running(config(bad.url, good.url)) as router:
            replies = [await router.client.post(CHAT, json=chat) for _ in range(2)]

    assert [reply.status_code for reply in replies] == [200, 200]


async def test_with_no_worker_left_the_error_names_the_worker_and_says_whose_fault_it_was(chat: dict[str, Any]) -> None:
    async def hang_up(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with upstream(hang_up) as bad, running(config(f"gpu0={bad.url}")) as router:
        reply = await router.client.post(CHAT, json=chat)

    error = reply.json()["error"]
    assert reply.status_code == 502
    assert error["source"] == "worker"
    assert "gpu0" in error["message"]


async def test_every_event_of_a_stream_arrives_unchanged(chat: dict[str, Any]) -> None:
    async def script(call: Call, writer: asyncio.StreamWriter) -> None:
        data = event("a") + event("b") + event("ü") + DONE
        writer.write(STREAM_HEAD)
        for cut in range(0, len(data), 7):  # events split across packets in every way
            writer.write(chunk(data[cut : cut + 7]))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with upstream(script) as worker, running(config(worker.url)) as router:
        reply = await router.client.post(CHAT, json={**chat, "stream": True})

    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.content == event("a") + event("b") + event("ü") + DONE


@pytest.mark.parametrize("ending", ["reset", "clean end without [DONE]", "half an event"])
async def test_a_stream_cut_after_its_first_byte_ends_with_a_visible_error_event(
    ending: str, chat: dict[str, Any]
) -> None:
    seen = asyncio.Event()

    async def script(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(event("a")))
        await writer.drain()
        await seen.wait()
        if ending == "reset":
            writer.transport.abort()
        elif ending == "half an event":
            writer.write(chunk(event("b")[:-5]) + b"0\r\n\r\n")
        else:
            writer.write(b"0\r\n\r\n")

    async with upstream(script) as one, upstream(script) as two, running(config(one.url, two.url)) as router:
        received = b""
        async with router.client.stream("POST", CHAT, json={**chat, "stream": True}) as reply:
            async for piece in reply.aiter_bytes():
                received += piece
                seen.set()

    events = [part for part in received.split(b"\n\n") if part]
    assert events[0] + b"\n\n" == event("a")
    error = json.loads(events[-1].removeprefix(b"data: "))["error"]
    assert error["code"] == "stream_cut"
    assert error["source"] == "worker"
    assert len(one.calls) + len(two.calls) == 1


async def test_a_client_that_hangs_up_frees_its_worker_at_once(chat: dict[str, Any]) -> None:
    closed = asyncio.Event()

    async def endless(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        try:
            while True:
                writer.write(chunk(event("x")))
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            closed.set()
            raise

    async with upstream(endless) as worker, running(config(worker.url)) as router:
        async with router.client.stream("POST", CHAT, json={**chat, "stream": True}) as reply:
            async for _ in reply.aiter_bytes():
                break
            assert (await router.workers())["w1"]["in_flight"] == 1
        await router.until(lambda all_: all_["w1"]["in_flight"] == 0)
        async with asyncio.timeout(30):
            await closed.wait()
        metrics = (await router.client.get("/metrics")).text

    assert 'error="client_gone"' in metrics


async def test_a_client_that_hangs_up_while_the_worker_is_silent_frees_it_too(chat: dict[str, Any]) -> None:
    closed = asyncio.Event()

    async def silent(call: Call, writer: asyncio.StreamWriter) -> None:
        await call.left()
        closed.set()
        raise ConnectionResetError

    async with upstream(silent) as worker, running(config(worker.url)) as router:
        with pytest.raises(httpx.ReadTimeout):
            await router.client.post(CHAT, json=chat, timeout=httpx.Timeout(5, read=0.3))
        await router.until(lambda all_: all_["w1"]["in_flight"] == 0)
        async with asyncio.timeout(30):
            await closed.wait()


async def test_a_worker_that_sends_nothing_meets_the_deadline_and_the_error_names_it(chat: dict[str, Any]) -> None:
    async def silent(call: Call, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async with upstream(silent) as worker:
        async with running(config(worker.url, forward={"first_byte_timeout_s": 0.2})) as router:
            reply = await router.client.post(CHAT, json=chat)

    assert reply.status_code == 504
    assert "first_byte_timeout_s" in reply.json()["error"]["message"]


async def test_a_plain_answer_cut_in_the_middle_is_retried_while_nothing_was_sent(chat: dict[str, Any]) -> None:
    async def short(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
        await writer.drain()
        writer.transport.close()

    async with upstream(short) as bad, upstream(answer(b'{"ok": 1}')) as good:
        async with running(config(bad.url, good.url)) as router:
            replies = [await router.client.post(CHAT, json=chat) for _ in range(2)]

    assert [reply.json() for reply in replies] == [{"ok": 1}] * 2


async def test_explain_headers_are_given_only_to_those_who_ask(chat: dict[str, Any]) -> None:
    async with upstream() as worker, running(config(worker.url)) as router:
        plain = await router.client.post(CHAT, json=chat)
        asked = await router.client.post(CHAT, json=chat, headers={"x-trieway-explain": "1"})

    assert not [name for name in plain.headers if name.startswith("x-trieway")]
    assert asked.headers["x-trieway-worker"] == "w1"


async def test_an_unknown_model_is_a_404_that_lists_those_served(chat: dict[str, Any]) -> None:
    async with upstream(model="llama") as worker, running(config(worker.url)) as router:
        reply = await router.client.post(CHAT, json={**chat, "model": "nope"})

    assert reply.status_code == 404
    assert "llama" in reply.json()["error"]["message"]
    assert not worker.calls


async def test_requests_go_only_to_workers_that_serve_their_model(chat: dict[str, Any]) -> None:
    async with upstream(model="a") as one, upstream(model="b") as two, running(config(one.url, two.url)) as router:
        for _ in range(3):
            (await router.client.post(CHAT, json={**chat, "model": "b"})).raise_for_status()
        names = [card["id"] for card in (await router.client.get("/v1/models")).json()["data"]]

    assert not one.calls
    assert len(two.calls) == 3
    assert names == ["a", "b"]


async def test_a_body_past_the_limit_is_refused_before_it_is_read() -> None:
    async with upstream() as worker, running(config(worker.url, server={"max_body_bytes": 1024})) as router:
        declared = await router.client.post(CHAT, content=b" " * 2000)

        async def pieces() -> Any:
            for _ in range(20):
                yield b" " * 100

        chunked = await router.client.post(CHAT, content=pieces())

    assert [declared.status_code, chunked.status_code] == [413, 413]
    assert "--max-body-bytes" in declared.json()["error"]["message"]
    assert not worker.calls


async def test_with_one_attempt_a_refusal_is_handed_on_and_nobody_else_is_asked(chat: dict[str, Any]) -> None:
    script = answer({"message": "busy"}, 503)
    async with upstream(script) as one, upstream(script) as two:
        async with running(config(one.url, two.url, dispatch={"max_attempts": 1})) as router:
            reply = await router.client.post(CHAT, json=chat)

    assert (reply.status_code, reply.json()) == (503, {"message": "busy"})
    assert len(one.calls) + len(two.calls) == 1


async def test_what_a_worker_counted_is_told_to_whoever_counted_before(
    chat: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    match, told = ExactMatch(kind=CHAT, prompt_tokens=7, match_tokens={}), list[tuple[ExactMatch, int | None]]()

    async def found(self: ExactMatcher, parsed: object) -> ExactMatch:
        return match

    monkeypatch.setattr(ExactMatcher, "match", found)
    monkeypatch.setattr(ExactMatcher, "reported", lambda self, *what: told.append(what))
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    script = answer({"id": "x", "choices": [], "usage": usage})
    async with upstream(script) as worker, running(config(worker.url, exact={"enabled": True})) as router:
        await router.client.post(CHAT, json=chat)

    assert told == [(match, 9)]


async def test_a_request_that_waits_for_its_worker_holds_its_body_once_and_not_what_was_read_in_it() -> None:
    size = 4_000_000
    body = json.dumps({"messages": [{"role": "user", "content": "x" * size}]}).encode()
    ours = tracemalloc.Filter(True, str(Path(package.__file__ or "").parent / "*"))
    held: list[int] = []

    async def look(call: Call, writer: asyncio.StreamWriter) -> None:
        traces = tracemalloc.take_snapshot().filter_traces([ours])
        held.append(sum(trace.size for trace in traces.traces if trace.size > size / 2))
        await answer({"ok": 1})(call, writer)

    async with upstream(look) as worker, running(config(worker.url)) as router:
        tracemalloc.start()
        try:
            await router.client.post(CHAT, content=body)
        finally:
            tracemalloc.stop()

    assert len(held) == 1
    assert size <= held[0] < 1.5 * size
