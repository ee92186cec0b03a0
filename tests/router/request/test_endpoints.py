"""Which paths and methods are model calls, where they go, and the same under an ASGI server that is not ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from router.admission.door import Door
from router.app import create_app
from router.asgi import ASGIApp
from router.policies.round_robin import RoundRobin
from router.request import endpoints, relay
from router.request.endpoints import is_model_call
from router.request.parse import NEEDS
from router.request.prompt_key import CANONICAL
from router_fakes import DONE, STREAM_HEAD, Call, Upstream, answer, chunk, config, event, running, upstream

CHAT = "/v1/chat/completions"
DEADLINE_S = 30.0
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}]}).encode()
STREAM = BODY[:-1] + b', "stream": true}'


def test_every_model_call_has_a_prompt_key() -> None:
    assert set(CANONICAL) == set(NEEDS)


@pytest.mark.parametrize(
    ("method", "path", "model_call"),
    [("POST", "/generate", True), ("PUT", "/generate", True), ("PUT", "/v1/chat/completions", False),
     ("GET", "/generate", False), ("POST", "/tokenize", False)],
)  # fmt: skip
def test_model_calls_are_told_by_path_and_method(method: str, path: str, model_call: bool) -> None:
    assert is_model_call(method, path) is model_call


async def test_native_pooling_calls_and_puts_reach_a_worker() -> None:
    async with upstream() as worker, running(config(worker.url)) as router:
        calls = (("PUT", "/generate"), ("POST", "/encode"), ("POST", "/v1/classify"), ("GET", "/encode"))
        body = {"text": "x", "input": "x"}
        statuses = [(await router.client.request(*call, json=body)).status_code for call in calls]

    assert statuses == [200, 200, 200, 405]
    assert [call.path for call in worker.calls] == ["/generate", "/encode", "/v1/classify"]


async def test_a_model_is_described_by_its_name_and_an_unknown_one_is_404() -> None:
    async with upstream(model="org/name") as worker, running(config(worker.url)) as router:
        known = await router.client.get("/v1/models/org/name")
        unknown = await router.client.get("/v1/models/other")
        ping = await router.client.get("/ping")

    assert known.json()["id"] == "org/name"
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert (ping.status_code, ping.content) == (200, b"")


# -- over ASGI ------------------------------------------------------------------------------------------------------


class Exchange:
    """One request to an app: what its client sends, and `sent`, what it was sent."""

    def __init__(self, app: ASGIApp, *pieces: bytes, path: str = CHAT, whole: bool = True, **headers: str) -> None:
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.sent: list[Any] = []
        self.started = asyncio.Event()
        for index, piece in enumerate(pieces):
            more = not whole or index < len(pieces) - 1
            self.messages.put_nowait({"type": "http.request", "body": piece, "more_body": more})
        spelled = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "path": path, "query_string": b"a=b", "headers": spelled}
        self.task = asyncio.ensure_future(app(scope, self.messages.get, self._send))

    async def _send(self, message: Any) -> None:
        self.sent.append(message)
        self.started.set()

    def leave(self) -> None:
        self.messages.put_nowait({"type": "http.disconnect"})

    async def end(self) -> Exchange:
        async with asyncio.timeout(DEADLINE_S):
            await self.task
        return self

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def code(self) -> Any:
        return json.loads(self.body)["error"]["code"]

    @property
    def complete(self) -> bool:
        return bool(self.sent) and not self.sent[-1].get("more_body", True)


@asynccontextmanager
async def over_asgi(url: str, door: Door | None = None, **sections: Any) -> AsyncIterator[ASGIApp]:
    """The app in front of one worker, which is ready; without a server."""
    app = create_app(config(url, **sections), door=door)
    messages: asyncio.Queue[Any] = asyncio.Queue()
    said: asyncio.Queue[Any] = asyncio.Queue()
    life = asyncio.ensure_future(app({"type": "lifespan"}, messages.get, said.put))
    messages.put_nowait({"type": "lifespan.startup"})
    async with asyncio.timeout(DEADLINE_S):
        await said.get()
        while await ready(app) != 200:
            await asyncio.sleep(0.01)
    try:
        yield app
    finally:
        messages.put_nowait({"type": "lifespan.shutdown"})
        await life


async def ready(app: ASGIApp) -> int:
    sent: list[Any] = []

    async def nothing() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/ready", "raw_path": b"/ready", "query_string": b"",
             "headers": [], "root_path": "", "scheme": "http", "server": None, "client": None}  # fmt: skip
    await app(scope, nothing, send)
    return int(sent[0]["status"])


async def test_over_asgi_a_call_reaches_the_worker_and_its_answer_comes_back_whole() -> None:
    async with upstream(answer(b'{"odd" : 1}')) as worker, over_asgi(worker.url) as app:
        one = await Exchange(app, BODY[:20], BODY[20:], x_custom="kept").end()

    assert (one.status, one.body, one.complete) == (200, b'{"odd" : 1}', True)
    assert (b"content-length", b"11") in one.sent[0]["headers"]
    [call] = worker.calls
    assert (call.target, call.body, call.header("x-custom")) == (f"{CHAT}?a=b", BODY, "kept")


async def test_over_asgi_a_stream_comes_event_by_event_while_the_worker_still_writes() -> None:
    goes_on = asyncio.Event()

    async def script(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(event("a")))
        await goes_on.wait()
        writer.write(chunk(event("b") + DONE) + chunk(b""))

    async with upstream(script) as worker, over_asgi(worker.url) as app, asyncio.timeout(DEADLINE_S):
        one = Exchange(app, STREAM)
        await one.started.wait()
        early = one.complete
        goes_on.set()
        await one.end()

    assert (early, one.complete) == (False, True)
    assert one.body == event("a") + event("b") + DONE


async def test_over_asgi_a_long_answer_comes_in_pieces_and_one_that_breaks_off_has_no_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay, "WHOLE_BODY_BYTES", 1000)

    async def half(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 600000\r\n\r\n" + b"x" * 300_000)
        await writer.drain()
        writer.close()

    async with upstream(answer(b"x" * 600_000)) as worker, over_asgi(worker.url) as app:
        long = await Exchange(app, BODY).end()
        worker.script = half
        broken = await Exchange(app, BODY).end()

    assert (long.status, len(long.body), long.complete) == (200, 600_000, True)
    assert len(long.sent) > 3
    assert (broken.status, broken.complete) == (200, False)
    assert 0 < len(broken.body) <= 300_000


@pytest.mark.parametrize("headers", [{"content_length": "5000"}, {"content_length": "nonsense"}, {}])
@pytest.mark.parametrize("rest", ["comes", "never comes", "is too much"])
async def test_over_asgi_a_body_that_is_too_large_is_refused_before_its_end_and_its_sender_gets_to_read_it(
    headers: dict[str, str], rest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "DRAIN_BYTES", 20_000)
    async with upstream() as worker, over_asgi(worker.url, server={"max_body_bytes": 1024}) as app:
        one = Exchange(app, b"x" * 3000, whole=False, **headers)
        async with asyncio.timeout(DEADLINE_S):
            await one.started.wait()
        if rest == "comes":
            one.messages.put_nowait({"type": "http.request", "body": b"x" * 2000, "more_body": False})
        elif rest == "never comes":
            one.leave()
        else:
            one.messages.put_nowait({"type": "http.request", "body": b"x" * 30_000, "more_body": True})
        await one.end()

    assert (one.status, one.code, one.complete) == (413, "body_too_large", True)
    assert worker.calls == []


async def test_over_asgi_a_client_that_waits_to_be_told_to_go_on_is_not_waited_for_after_a_refusal() -> None:
    async with upstream() as worker, over_asgi(worker.url, server={"max_body_bytes": 1024}) as app:
        one = await Exchange(app, content_length="5000", expect="100-continue").end()

    assert (one.status, one.complete) == (413, True)


async def test_over_asgi_a_client_that_leaves_while_it_sends_costs_no_worker_anything() -> None:
    async with upstream() as worker, over_asgi(worker.url) as app:
        one = Exchange(app, BODY[:20], whole=False)
        one.leave()
        await one.end()

    assert (one.sent, worker.calls) == ([], [])


async def hang(call: Call, writer: asyncio.StreamWriter) -> None:
    await call.left()


async def worker_has(worker: Upstream) -> None:
    while not worker.calls:
        await asyncio.sleep(0.01)


async def test_over_asgi_a_client_that_leaves_ends_the_workers_work_and_nothing_else() -> None:
    left = asyncio.Event()

    async def script(call: Call, writer: asyncio.StreamWriter) -> None:
        await call.left()
        left.set()

    async with upstream(script) as worker, over_asgi(worker.url) as app, asyncio.timeout(DEADLINE_S):
        one = Exchange(app, BODY)
        await worker_has(worker)
        one.messages.put_nowait({"type": "http.request", "body": b"", "more_body": False})  # it is still there
        one.leave()
        await one.end()
        await left.wait()

    assert one.sent == []


async def test_over_asgi_a_server_that_stops_tells_the_client_and_is_not_kept_from_stopping() -> None:
    async with upstream(hang) as worker, over_asgi(worker.url) as app, asyncio.timeout(DEADLINE_S):
        one = Exchange(app, BODY)
        await worker_has(worker)
        one.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one.task

    assert (one.status, one.code, one.complete) == (503, "router_stopping", True)


async def test_over_asgi_a_client_that_leaves_as_the_server_stops_does_not_keep_it_from_stopping_either() -> None:
    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    async with upstream(hang) as worker, over_asgi(worker.url) as app, asyncio.timeout(DEADLINE_S):
        one = Exchange(app, BODY)
        await worker_has(worker)
        one.task.cancel()
        one.leave()
        with pytest.raises(asyncio.CancelledError):
            await one.task

    assert errors == []


async def test_a_bug_of_ours_is_told_as_ours_with_the_id_to_look_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    async with upstream() as worker, over_asgi(worker.url) as app:
        with monkeypatch.context() as patch:
            patch.setattr(RoundRobin, "select", broken)
            one = await Exchange(app, BODY, x_request_id="mine").end()
        next_one = await Exchange(app, BODY).end()

    assert (one.status, one.code, next_one.status) == (500, "internal_error", 200)
    assert "ZeroDivisionError. Request id mine." in one.body.decode()
    assert "request mine failed inside the router" in caplog.text


async def test_a_request_that_fails_of_a_bug_while_it_is_on_its_way_is_broken_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = asyncio.Event()

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    async def until_left(call: Call, writer: asyncio.StreamWriter) -> None:
        await call.left()
        left.set()

    async with upstream() as worker, over_asgi(worker.url) as app, asyncio.timeout(DEADLINE_S):
        before = await Exchange(app, BODY).end()
        worker.script = until_left
        with monkeypatch.context() as patch:
            patch.setattr(RoundRobin, "observe", broken)
            one = await Exchange(app, BODY).end()
        await left.wait()

    assert (before.status, one.status) == (200, 500)


async def test_what_comes_after_the_door_was_closed_is_sent_elsewhere() -> None:
    door = Door()
    async with upstream() as worker, over_asgi(worker.url, door) as app:
        before = await Exchange(app, BODY).end()
        door.close()
        after = await Exchange(app, BODY).end()

    assert (before.status, after.status, after.code) == (200, 503, "router_stopping")
    assert len(worker.calls) == 1
