"""HTTP/1.1 as the simulated worker speaks it, seen from the socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from workers.simulated.connection import MAX_HEADER_BYTES, Connection
from workers.simulated.reply import Reply, Request

Answer = Callable[[Request, Reply], None]


class Site:
    """A listening Connection whose answers a test gives."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.replies: list[Reply] = []
        self.answer: Answer = lambda request, reply: reply.send_json({"path": request.path})
        self.connections: set[Connection] = set()
        self.port = 0

    def handle(self, request: Request, reply: Reply) -> None:
        self.requests.append(request)
        self.replies.append(reply)
        self.answer(request, reply)

    async def exchange(self, data: bytes, *, until: bytes = b"") -> bytes:
        """Sends `data`, reads to the end of the connection or to `until`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            async with asyncio.timeout(30):
                return await reader.readuntil(until) if until else await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    here = Site()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(here.handle, here.connections), "127.0.0.1", 0)
    here.port = server.sockets[0].getsockname()[1]
    yield here
    for connection in list(here.connections):
        connection.close()
    server.close()
    await server.wait_closed()


async def test_a_request_arrives_whole_with_lower_case_headers(site: Site) -> None:
    data = b"POST /a/b?x=1 HTTP/1.1\r\nHost: h\r\nX-Thing: Some\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"
    answer = await site.exchange(data)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b'{"path":"/a/b"}')
    request = site.requests[0]
    assert (request.method, request.path, request.query, request.body) == ("POST", "/a/b", "x=1", b"body")
    assert request.headers["x-thing"] == "Some"


async def test_a_chunked_body_is_put_together(site: Site) -> None:
    await site.exchange(
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"
    )
    assert site.requests[0].body == b"abcde"


async def test_pipelined_requests_are_answered_one_after_the_other_in_order(site: Site) -> None:
    site.answer = lambda request, reply: None
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(30):
        while len(site.requests) < 1:
            await asyncio.sleep(0.001)
        assert len(site.requests) == 1
        site.replies[0].send_json(1)
        while len(site.requests) < 2:
            await asyncio.sleep(0.001)
        site.replies[1].send_json(2)
        whole = await reader.read()
    assert whole.index(b"\r\n\r\n1") < whole.index(b"\r\n\r\n2")
    writer.close()


async def test_the_connection_is_kept_for_the_next_request(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    for path in (b"/1", b"/2", b"/3"):
        writer.write(b"GET %s HTTP/1.1\r\n\r\n" % path)
        async with asyncio.timeout(30):
            assert b'"%s"}' % path in await reader.readuntil(b"}")
    assert len(site.connections) == 1
    writer.close()


async def test_head_gets_the_headers_of_the_answer_and_no_body(site: Site) -> None:
    answer = await site.exchange(b"HEAD /x HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert b"content-length: 13\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_a_client_that_waits_for_100_continue_gets_it(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    async with asyncio.timeout(30):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hi")
        assert b"200 OK" in await reader.readuntil(b"}")
    writer.close()


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n"])
async def test_what_is_not_http_gets_400_and_the_connection_closes(site: Site, data: bytes) -> None:
    answer = await site.exchange(data)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert not site.requests


async def test_headers_past_the_limit_get_431(site: Site) -> None:
    line = b"X-Big: " + b"a" * 8000 + b"\r\n"
    answer = await site.exchange(b"GET / HTTP/1.1\r\n" + line * (MAX_HEADER_BYTES // 8000 + 2) + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert not site.requests


async def test_a_stream_is_chunked_and_ends_as_http_ends_it(site: Site) -> None:
    def stream(request: Request, reply: Reply) -> None:
        reply.start()
        reply.write(b"data: 1\n\n")
        reply.write(b"data: 2\n\n")
        reply.end()

    site.answer = stream
    answer = await site.exchange(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert b"content-length" not in head
    assert body == b"9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n"


async def test_a_client_that_leaves_is_reported_once_and_later_writes_are_ignored(site: Site) -> None:
    gone: list[str] = []

    def hold(request: Request, reply: Reply) -> None:
        reply.on_close = lambda: gone.append(request.path)
        reply.start()

    site.answer = hold
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(30):
        while not site.replies:
            await asyncio.sleep(0.001)
        writer.close()
        while not gone:
            await asyncio.sleep(0.001)
    reply = site.replies[0]
    assert reply.closed
    reply.write(b"data: late\n\n")
    reply.end()
    assert gone == ["/1"]
    assert len(site.requests) == 1
    assert not site.connections


async def test_a_finished_reply_no_longer_reports_the_client_leaving(site: Site) -> None:
    gone: list[str] = []

    def answer(request: Request, reply: Reply) -> None:
        reply.on_close = lambda: gone.append(request.path)
        reply.send_json(1)

    site.answer = answer
    await site.exchange(b"GET / HTTP/1.1\r\n\r\n", until=b"\r\n\r\n1")
    async with asyncio.timeout(30):
        while site.connections:
            await asyncio.sleep(0.001)
    assert not gone


async def test_a_reset_is_seen_as_a_reset(site: Site) -> None:
    site.answer = lambda request, reply: reply.reset()
    with pytest.raises(ConnectionResetError):
        await site.exchange(b"GET / HTTP/1.1\r\n\r\n")


async def test_a_throttled_answer_takes_its_time_and_arrives_whole(site: Site) -> None:
    def slow(request: Request, reply: Reply) -> None:
        reply.throttle(1000.0)
        reply.send(b"x" * 100)

    site.answer = slow
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    answer = await site.exchange(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n" + b"x" * 100)
    assert loop.time() - started_s >= len(answer) / 1000.0 / 2
