"""The client's side of the port: turns on one connection, limits in size and time, and what is no HTTP at all."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
import uvicorn

from router import inbound
from router.app import create_app
from router.inbound import RouterProtocol, limited_protocol
from router.request.model_call import ModelCall
from router.request.over_asgi import Split
from router_fakes import DONE, STREAM_HEAD, Call, answer, chunk, config, event, running, upstream

CHAT = "/v1/chat/completions"
DEADLINE_S = 30.0
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}]}).encode()


def post(body: bytes = BODY, headers: str = "", path: str = CHAT) -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


async def talk(port: int, sent: bytes) -> bytes:
    """Everything that comes back until the router closes the connection."""
    async with asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        received = await reader.read()
        writer.close()
    return received


async def test_model_calls_do_not_pass_through_asgi(chat: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def asgi(self: Split, scope: dict[str, Any], receive: Any, send: Any) -> None:
        asked.append(scope.get("path", scope["type"]))
        await self._control(scope, receive, send)

    monkeypatch.setattr(Split, "__call__", asgi)
    async with upstream() as worker, running(config(worker.url)) as router:
        assert (await router.client.post(CHAT, json=chat)).status_code == 200

    assert "/workers" in asked
    assert CHAT not in asked


async def test_a_bug_of_ours_met_while_a_request_is_parsed_is_told_as_ours_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: ModelCall, *, its_turn: bool) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(ModelCall, "end_body", broken)
    async with upstream() as worker, running(config(worker.url)) as router:
        received = await talk(router.port, post())

    assert received.startswith(b"HTTP/1.1 500 ")
    assert b'"source":"router"' in received
    assert "a bug" in caplog.text


async def test_pipelined_requests_are_answered_in_their_order_whichever_way_they_take() -> None:
    async def slow_first(call: Call, writer: asyncio.StreamWriter) -> None:
        name = call.header("x-name") or ""
        if name == "1":
            await asyncio.sleep(0.1)
        await answer({"name": name})(call, writer)

    async with upstream(slow_first) as worker, running(config(worker.url)) as router:
        sent = (
            post(headers="x-name: 1\r\n") + b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n" + post(headers="x-name: 2\r\n")
            + b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n" + post(headers="x-name: 3\r\nconnection: close\r\n")
        )  # fmt: skip
        received = await talk(router.port, sent)

    parts = received.split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [part.partition(b"\r\n\r\n")[2] for part in parts] == [
        b'{"name": "1"}', b"", b'{"name": "2"}', b'{"status":"ok"}', b'{"name": "3"}',
    ]  # fmt: skip


async def test_a_client_that_repeats_its_head_is_answered_as_if_it_had_been_parsed_each_time() -> None:
    bodies = [json.dumps({"messages": [{"role": "user", "content": "x" * size}]}).encode() for size in (1, 900, 20)]

    async def echo(call: Call, writer: asyncio.StreamWriter) -> None:
        await answer({"length": len(call.body), "header": call.header("x-a") or ""})(call, writer)

    async with upstream(echo) as worker, running(config(worker.url)) as router, asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        answers = []
        for sent, named in [*((body, "1") for body in bodies * 2), (bodies[0], "2"), (bodies[1], "2")]:
            writer.write(post(sent, headers=f"x-a: {named}\r\n"))
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            assert length is not None
            answers.append(json.loads(await reader.readexactly(int(length[1]))))
            assert re.search(rb"x-request-id: req-[0-9a-f]{16}\r\n", head)
        writer.close()

    wanted = [len(body) for body in bodies]
    assert [each["length"] for each in answers] == [*wanted, *wanted, wanted[0], wanted[1]]
    assert [each["header"] for each in answers] == ["1"] * 6 + ["2"] * 2


async def test_a_head_that_was_sent_before_is_not_taken_for_a_request_in_the_middle_of_another() -> None:
    async with upstream() as worker, running(config(worker.url)) as router, asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        for _ in range(2):
            writer.write(post())
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            assert length is not None
            await reader.readexactly(int(length[1]))
        inner = post()
        writer.write(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(inner)}\r\n\r\n".encode())
        await writer.drain()
        await asyncio.sleep(0)
        writer.write(inner)  # the body of the third, not a fourth
        received = await reader.readuntil(b"\r\n")
        writer.close()

    assert received.startswith(b"HTTP/1.1 400 ")
    assert len(worker.calls) == 2


async def test_many_pipelined_requests_that_fail_at_once_do_not_pile_up_on_the_stack() -> None:
    async with running(config(), ready=0) as router:
        received = await talk(router.port, post(b"{}") * 2000 + post(b"{}", "connection: close\r\n"))

    assert received.count(b"HTTP/1.1 400 ") == 2001


@pytest.mark.parametrize(
    "sent",
    [
        b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST %b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        b"POST %b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: +5\r\n\r\nhello",
        b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: 5, 5\r\n\r\nhello",
        b"POST %b HTTP/1.1\r\nhost: x\r\nx: a\rb\r\ncontent-length: 2\r\n\r\n{}",
        b"POST %b HTTP/1.1\nhost: x\ncontent-length: 2\n\n{}",
        b"POST %b HTTP/1.1\r\nhost: x\r\nx: a\r\n b\r\ncontent-length: 2\r\n\r\n{}",
        b"POST %b HTTP/1.1\r\nhost: x\r\nx : a\r\ncontent-length: 2\r\n\r\n{}",
        b"POST %b HTTP/1.1\r\nhost: x\r\nx: a\x00b\r\ncontent-length: 2\r\n\r\n{}",
        b"POST %b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST %b HTTP/3.7\r\nhost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03%b",
    ],
    ids=["two lengths", "length, chunked", "chunked, length", "unknown coding", "signed length", "list of lengths",
         "bare CR", "bare LF", "folded", "space before colon", "NUL", "no chunk size", "version", "TLS"],
)  # fmt: skip
async def test_what_could_be_read_in_two_ways_is_refused_and_the_connection_closed(sent: bytes) -> None:
    async with upstream() as worker, running(config(worker.url)) as router:
        received = await talk(router.port, sent % CHAT.encode())

    assert received.startswith(b"HTTP/1.1 400 ")
    assert len(re.findall(rb"HTTP/1\.1 \d", received)) == 1
    assert b"connection: close" in received
    assert worker.calls == []


async def test_garbage_behind_a_request_is_refused_after_its_answer() -> None:
    async def slow(call: Call, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        await answer({"ok": 1})(call, writer)

    async with upstream(slow) as worker, running(config(worker.url)) as router:
        received = await talk(router.port, post() + b"\x00\x01garbage\r\n\r\n")

    first, second = re.split(rb"HTTP/1\.1 (?=\d)", received)[1:]
    assert first.startswith(b"200 ")
    assert first.endswith(b'{"ok": 1}')
    assert second.startswith(b"400 ")


async def test_headers_that_do_not_end_and_bodies_that_stop_meet_their_deadline(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbound, "HEADERS_S", 0.2)
    monkeypatch.setattr(inbound, "BODY_S", 0.2)
    async with upstream() as worker, running(config(worker.url)) as router:
        slow_head, slow_body, silent = await asyncio.gather(
            talk(router.port, b"POST " + CHAT.encode() + b" HTTP/1.1\r\nhost: x\r\nx-a"),
            talk(router.port, post()[:-3]),
            talk(router.port, b""),
        )

    assert slow_head.startswith(b"HTTP/1.1 408 ")
    assert slow_body.startswith(b"HTTP/1.1 408 ")
    assert silent == b""
    assert worker.calls == []


@pytest.mark.parametrize(
    "beginning",
    [
        pytest.param(b"POST %b HTTP/1.1\r\nhost: x\r\nx-a: " % CHAT.encode(), id="headers"),
        pytest.param(b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: 99999\r\n\r\n" % CHAT.encode(), id="body"),
        pytest.param(b"POST /workers HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\n", id="body of control"),
    ],
)
async def test_bytes_that_trickle_in_do_not_move_the_deadline_of_a_request(
    beginning: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbound, "HEADERS_S", 0.3)
    monkeypatch.setattr(inbound, "BODY_S", 0.3)
    async with upstream() as worker, running(config(worker.url)) as router, asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(beginning)
        answer_ = asyncio.ensure_future(reader.readuntil(b"\r\n"))  # what is sent after it may meet a reset
        while not answer_.done():
            writer.write(b"a")
            await asyncio.sleep(0.02)
        writer.close()

    assert answer_.result().startswith(b"HTTP/1.1 408 ")


async def test_an_address_has_at_most_so_many_connections_and_gets_a_place_again_when_one_closes() -> None:
    async with upstream() as worker, running(
        config(worker.url, server={"max_connections_per_address": 3})
    ) as router, asyncio.timeout(DEADLINE_S):  # the test's own client has one of them
        held = [await asyncio.open_connection("127.0.0.1", router.port) for _ in range(2)]
        one_too_many = await talk(router.port, post())
        for _, writer in held:
            writer.close()
        last = post(headers="connection: close\r\n")
        while not (answered := await talk(router.port, last)).startswith(b"HTTP/1.1 200 "):
            assert answered.startswith(b"HTTP/1.1 429 ")

    head, _, body = one_too_many.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 ")
    assert b"connection: close" in head
    assert b"server.max_connections_per_address" in body


async def test_a_long_answer_before_it_does_not_count_as_time_that_a_request_took(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second request's body waits in the client's kernel while the first is served, as it was asked to."""

    async def slow(call: Call, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.6)
        await answer({"ok": 1})(call, writer)

    monkeypatch.setattr(inbound, "BODY_S", 0.4)
    async with upstream(slow) as worker, running(config(worker.url)) as router, asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        second = post(headers="connection: close\r\n")
        writer.write(post() + second[:-3])
        await reader.readuntil(b"}")
        await asyncio.sleep(0.1)
        writer.write(second[-3:])
        received = await reader.read()
        writer.close()

    assert received.startswith(b"HTTP/1.1 200 ")
    assert [call.body for call in worker.calls] == [BODY, BODY]


async def test_a_client_that_asks_to_go_on_is_told_to_and_answered() -> None:
    async with upstream() as worker, running(config(worker.url)) as router, asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        head, _, body = post(headers="expect: 100-continue\r\nconnection: close\r\n").partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        told = await reader.readuntil(b"\r\n\r\n")
        writer.write(body)
        received = await reader.read()
        writer.close()

    assert told == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert received.startswith(b"HTTP/1.1 200 ")
    assert worker.calls[0].body == BODY


@pytest.mark.parametrize(("body_bytes", "header_bytes", "status"), [(10, 40_000, 431), (150_000, 20_000, 200)])
async def test_headers_are_counted_from_their_own_request_on(body_bytes: int, header_bytes: int, status: int) -> None:
    """The second request's headers begin in the piece that ends the first, however large that was."""
    first = post(b'{"messages":[{"role":"user","content":"%b"}]}' % (b"x" * body_bytes))
    head, _, rest = post(headers=f"x-filler: {'y' * 2 * header_bytes}\r\nconnection: close\r\n").partition(b"yyy")
    async with upstream() as worker, running(config(worker.url)) as router, asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(first + head + b"y" * header_bytes)
        answered = await reader.readuntil(b"\r\n\r\n")
        writer.write(rest[header_bytes - 3 :])
        received = await reader.read()
        writer.close()

    assert answered.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 %d " % status in received


async def test_chunked_bodies_with_trailers_reach_the_worker_whole() -> None:
    sent = b"POST %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n" % CHAT.encode()
    sent += chunk(BODY[:7]) + chunk(BODY[7:]) + b"0\r\nx-trailer: 1\r\n\r\n"
    async with upstream() as worker, running(config(worker.url)) as router:
        received = await talk(router.port, sent)

    assert received.startswith(b"HTTP/1.1 200 ")
    [call] = worker.calls
    assert (call.body, call.header("x-trailer"), call.header("transfer-encoding")) == (BODY, None, None)


async def test_a_client_of_http_1_0_gets_a_stream_without_chunks_and_its_end_by_closing() -> None:
    async def script(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(event("a")) + chunk(DONE) + b"0\r\n\r\n")

    async with upstream(script) as worker, running(config(worker.url)) as router:
        received = await talk(router.port, post().replace(b"HTTP/1.1", b"HTTP/1.0"))

    head, _, body = received.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert body == event("a") + DONE


async def test_a_client_that_does_not_read_makes_the_router_stop_reading_from_the_worker() -> None:
    pushed = 0
    stuck = asyncio.Event()

    async def endless(call: Call, writer: asyncio.StreamWriter) -> None:
        nonlocal pushed
        writer.transport.set_write_buffer_limits(high=65_536)
        writer.write(STREAM_HEAD)
        piece = chunk(event("x" * 60_000))
        try:
            while True:
                writer.write(piece)
                try:
                    await asyncio.wait_for(writer.drain(), 1.0)
                except TimeoutError:
                    stuck.set()
                    await call.left()
                    return
                pushed += len(piece)
        finally:
            stuck.set()

    async with upstream(endless) as worker, running(config(worker.url)) as router, asyncio.timeout(DEADLINE_S):
        _, writer = await asyncio.open_connection("127.0.0.1", router.port)
        body = json.dumps({**json.loads(BODY), "stream": True}).encode()
        writer.write(post(body))
        await stuck.wait()
        writer.transport.abort()
        await router.until(lambda all_: all_["w1"]["in_flight"] == 0)

    assert pushed < 64 * 2**20


def test_the_factory_gives_the_protocol_its_limit_and_nothing_to_other_servers() -> None:
    one, other = limited_protocol(2048), limited_protocol(4096)

    assert issubclass(one, RouterProtocol)
    assert (one.max_header_bytes, other.max_header_bytes) == (2048, 4096)  # type: ignore[attr-defined]
    assert isinstance(uvicorn.Config(create_app(config())).app, Split)
