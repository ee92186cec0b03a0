"""A request whose head was recognised is read without the parser, however its body is cut, and nothing differs by it.

A connection is fed by hand, piece by piece, over a transport and a clock that are the test's own.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any, cast

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from router import inbound
from router.errors import InvalidApiKey
from router.inbound import BODY_BYTES_PER_S, BODY_S, SPREAD, RouterProtocol, limited_protocol
from router.request.dispatch import Dispatcher
from router.request.endpoints import DRAIN_BYTES, DRAIN_S, ModelCalls
from router.request.head import Head
from router.request.model_call import STRANGER_BYTES
from router.request.over_asgi import Split
from router.request.raw_request import RawRequest
from router.request.reply import AnswerHead, Reply
from router.request.strand import Gate, Strand

PLAIN = AnswerHead(200, [(b"content-type", b"text/plain")])
MAX_BODY_BYTES = 100_000
HEAD = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


def request(body: bytes) -> bytes:
    return HEAD % len(body) + body


class Wire:
    """A transport: what was written until it was closed."""

    def __init__(self) -> None:
        self.data = b""
        self.closed = False
        self.reading = True

    def write(self, data: bytes) -> None:
        if not self.closed:
            self.data += data

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 0) if name in ("peername", "sockname") else None

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Later:
    """What is to be called when it is time."""

    def __init__(self, due_s: float, call: Callable[[], object]) -> None:
        self.due_s, self.call, self.cancelled = due_s, call, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Time goes by when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._later: list[Later] = []

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, call: Callable[[], object]) -> Later:
        self._later.append(Later(self.now_s + delay_s, call))
        return self._later[-1]

    def call_soon(self, call: Callable[[], object]) -> Later:
        return self.call_later(0, call)

    def create_task(self, asgi: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        asgi.close()  # what is no model call is not served here
        return asyncio.Future(loop=cast("asyncio.AbstractEventLoop", self))

    def get_debug(self) -> bool:
        return False

    def advance(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while due := [each for each in self._later if each.due_s <= until_s]:
            first = min(due, key=lambda each: each.due_s)
            self._later.remove(first)
            self.now_s = max(self.now_s, first.due_s)
            if not first.cancelled:
                first.call()
        self.now_s = until_s


class Served:
    """Stands for the dispatcher: answers with the body's size, at once or when told to."""

    def __init__(self, *, stranger: bool = False, slow: bool = False, broken: bool = False) -> None:
        self.bodies: list[bytes] = []
        self.cancelled = 0
        self.stranger, self.slow, self.broken = stranger, slow, broken
        self.gates: list[Gate] = []

    async def dispatch(self, raw: RawRequest, reply: Reply, strand: Strand) -> None:
        assert type(raw.body) is bytes
        self.bodies.append(raw.body)
        if self.slow:
            self.gates.append(Gate())
            try:
                await self.gates[-1]
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        reply.answer(PLAIN, [], b"%d of %d" % (len(raw.body), sum(raw.body)))

    def admit_stranger(self, head: Head) -> None:
        if self.stranger:
            raise InvalidApiKey("Who are you?")

    def begin(self, headers: object) -> None:
        """As a tracer, which is asked when a body is whole."""
        if self.broken:
            raise RuntimeError("a bug")


class Parsing(RouterProtocol):
    """Recognises nothing."""

    def _learn(self, data: bytes, head: Head) -> None: ...


async def control(*_: object) -> None:
    raise AssertionError("no model call")


class Connection:
    """One connection of a client. With `known`, a request was answered on it, so that its head will be recognised."""

    def __init__(self, served: Served, *, known: bool = True, parsing: bool = False) -> None:
        self.wire, self.loop, self.served = Wire(), Loop(), served
        calls = ModelCalls(cast("Dispatcher", served), MAX_BODY_BYTES, self.loop.time, cast("Any", served))
        settings = uvicorn.Config(Split(calls, control), log_config=None, access_log=False, ws="none")  # type: ignore[arg-type]
        settings.load()
        settings.loaded_app = settings.app = Split(calls, control)
        kind: type[RouterProtocol] = Parsing if parsing else limited_protocol(64 * 2**10)
        self.protocol = kind(settings, ServerState(), {}, self.loop)
        self.fed: list[bytes] = []
        parser, protocol = self.protocol.parser, self.protocol

        class Watched:
            def __getattr__(self, name: str) -> Any:
                return getattr(parser, name)

            def feed_data(_, data: bytes) -> None:  # noqa: N805  self is the connection
                self.fed.append(data)
                parser.feed_data(data)

        protocol.parser = Watched()
        protocol.connection_made(self.wire)  # type: ignore[arg-type]
        if known:
            slow, served.slow = served.slow, False
            self.send(request(b"first"))
            served.slow = slow
            served.bodies.clear()
            self.fed.clear()
            self.wire.data = b""

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            if not self.wire.closed:
                self.protocol.data_received(piece)

    def leave(self) -> None:
        self.protocol.connection_lost(None)

    @property
    def statuses(self) -> list[int]:
        return [int(each) for each in re.findall(rb"HTTP/1\.1 (\d+) ", self.wire.data)]


def cut(data: bytes, *places: int) -> list[bytes]:
    inside = sorted({place for place in places if 0 < place < len(data)})
    return [data[start:end] for start, end in zip([0, *inside], [*inside, len(data)], strict=True)]


@pytest.mark.parametrize("places", [(60,), (len(HEAD % 500),), (len(HEAD % 500), 300), range(57, 550), (549,)])
def test_a_body_that_comes_in_pieces_behind_a_known_head_is_taken_without_the_parser(places: Sequence[int]) -> None:
    body = bytes(range(250)) * 2
    at = Connection(Served())
    at.send(*cut(request(body), *[place for place in places if place >= len(HEAD % 500)]))

    assert at.served.bodies == [body]
    assert at.fed == []
    assert at.statuses == [200]
    assert not at.wire.closed


def test_a_head_is_known_from_the_first_time_on_that_it_came_in_one_piece_whatever_its_body_did() -> None:
    at = Connection(Served(), known=False)
    at.send(*cut(request(b"a" * 500), 100, 300), *cut(request(b"b" * 900), 100, 300))

    assert at.served.bodies == [b"a" * 500, b"b" * 900]
    assert b"".join(at.fed) == request(b"a" * 500)


def test_a_head_that_came_in_pieces_is_not_learned() -> None:
    at = Connection(Served(), known=False)
    for _ in range(2):
        at.send(*cut(request(b"a" * 500), 20))

    assert at.served.bodies == [b"a" * 500] * 2
    assert b"".join(at.fed) == request(b"a" * 500) * 2


def test_what_follows_a_body_is_the_next_request_and_waits_for_its_turn() -> None:
    at = Connection(Served(slow=True))
    following = request(b"c" * 50)
    at.send(*cut(request(b"a" * 500) + following, 100), request(b"d"))
    before = list(at.served.bodies), at.wire.data, at.wire.reading
    for count in range(3):
        at.served.gates[count].open()

    assert before == ([b"a" * 500], b"", False)
    assert at.served.bodies == [b"a" * 500, b"c" * 50, b"d"]
    assert at.statuses == [200, 200, 200]
    assert at.wire.reading
    assert at.fed[0] == following


def test_what_follows_a_body_may_begin_with_the_known_head_again() -> None:
    at = Connection(Served())
    at.send(*cut(request(b"a" * 500) + request(b"b" * 500), 100, 640, 700))

    assert at.served.bodies == [b"a" * 500, b"b" * 500]
    assert at.fed == []


def test_garbage_behind_a_body_is_refused_after_its_answer() -> None:
    at = Connection(Served())
    at.send(*cut(request(b"a" * 500) + b"\x00\x01garbage\r\n\r\n", 100))

    assert at.statuses == [200, 400]
    assert at.wire.closed


@pytest.mark.parametrize("placed", ["apart", "together"])
def test_a_body_over_the_limit_is_refused_when_it_is_announced_and_then_drained(placed: str) -> None:
    at = Connection(Served())
    sent = request(b"a" * (MAX_BODY_BYTES + 1)) + request(b"never")
    begin = len(sent) - len(request(b"never")) - MAX_BODY_BYTES - 1
    at.send(*cut(sent, begin if placed == "apart" else begin + 10)[:1])
    refused = at.statuses, at.wire.closed
    at.send(sent[begin if placed == "apart" else begin + 10 :])

    assert refused == ([413], False)
    assert at.served.bodies == []
    assert at.fed == []
    assert at.wire.closed


def test_a_client_that_sends_a_refused_body_without_end_is_left_after_a_while() -> None:
    slow, many = Connection(Served()), Connection(Served())
    for at in (slow, many):
        at.send(HEAD % (2 * DRAIN_BYTES))
    slow.loop.advance(DRAIN_S)
    piece = bytes(2**20)
    count = 0
    while not many.wire.closed:
        many.send(piece)
        count += 1

    assert slow.wire.closed
    assert count == DRAIN_BYTES // 2**20 + 1


@pytest.mark.parametrize(("size", "statuses"), [(STRANGER_BYTES, [200]), (STRANGER_BYTES + 1, [401])])
def test_a_large_body_of_a_stranger_is_refused_before_it_comes(size: int, statuses: list[int]) -> None:
    at = Connection(Served(stranger=True))
    at.send(HEAD % size)
    early = at.statuses
    at.send(b"a" * size)

    assert early == [each for each in statuses if each == 401]
    assert at.statuses == statuses
    assert at.served.bodies == ([b"a" * size] if statuses == [200] else [])


def test_a_body_that_stops_meets_its_deadline() -> None:
    at = Connection(Served())
    at.send(HEAD % 5000 + b"a" * 100)
    at.loop.advance(BODY_S - 1)
    at.send(b"a")
    before = at.statuses
    at.loop.advance(BODY_S * (1 + SPREAD) + 100 / BODY_BYTES_PER_S)

    assert before == []
    assert at.statuses == [408]
    assert at.wire.closed
    assert at.served.bodies == []


def test_a_body_that_trickles_in_meets_the_deadline_of_a_whole_one_and_one_that_is_fast_enough_does_not() -> None:
    slow, fast = Connection(Served()), Connection(Served())
    for at, piece in ((slow, b"a" * 5), (fast, b"a" * int(BODY_BYTES_PER_S))):
        at.send(HEAD % 90_000)
        for _ in range(150):
            at.loop.advance(1)
            at.send(piece)

    assert slow.statuses == [408]
    assert slow.wire.closed
    assert fast.statuses == []
    assert not fast.wire.closed


def test_a_client_that_leaves_half_way_leaves_nothing_behind() -> None:
    at = Connection(Served())
    at.send(HEAD % 500 + b"a" * 100)
    at.leave()
    at.loop.advance(10 * BODY_S)

    assert at.served.bodies == []
    assert at.wire.data == b""


def test_a_client_that_leaves_while_it_is_served_has_its_call_cancelled() -> None:
    at = Connection(Served(slow=True))
    at.send(HEAD % 500, b"a" * 500)
    at.leave()
    at.loop.advance(0)

    assert at.served.cancelled == 1


def test_a_router_that_stops_meanwhile_answers_and_closes() -> None:
    at = Connection(Served())
    at.send(HEAD % 500, b"a" * 100)
    at.protocol.shutdown()
    at.send(b"a" * 400)

    assert at.served.bodies == [b"a" * 500]
    assert b"\r\nconnection: close\r\n" in at.wire.data
    assert at.wire.closed


def test_a_known_head_passes_no_limit_of_connections() -> None:
    at = Connection(Served())
    at.protocol.limit_concurrency = 1
    at.protocol._by_asgi = lambda: at.fed.append(b"by ASGI")  # type: ignore[method-assign]
    at.send(HEAD % 500)

    assert b"by ASGI" in at.fed
    assert at.served.bodies == []


@pytest.mark.parametrize("pieces", [(HEAD % 5 + b"aaaaa",), (HEAD % 5, b"aa", b"aaa")])
def test_a_bug_of_ours_is_told_as_ours_and_logged(pieces: Sequence[bytes], caplog: pytest.LogCaptureFixture) -> None:
    at = Connection(Served())
    at.served.broken = True
    at.send(*pieces)

    assert at.statuses == [500]
    assert b'"source":"router"' in at.wire.data
    assert at.wire.closed
    assert "a bug" in caplog.text


def test_a_head_that_asks_to_go_on_is_parsed_every_time() -> None:
    at = Connection(Served(), known=False)
    sent = request(b"a" * 20).replace(b"Host: x", b"Host: x\r\nExpect: 100-continue")
    for _ in range(2):
        at.send(*cut(sent, len(sent) - 20))

    assert at.statuses == [100, 200, 100, 200]
    assert b"".join(at.fed) == sent * 2


SIZES = [0, 1, 5, 20, 300, 5_000, STRANGER_BYTES + 1, MAX_BODY_BYTES + 1]
SCRAPS = [b"\r\n", b"\r\n\r\n", b"x", b"\x00", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", HEAD % 7]


@given(st.lists(st.sampled_from(SIZES), min_size=1, max_size=5), st.integers(0, 10**9), st.booleans())
def test_what_is_served_and_answered_is_what_the_parser_would_have_made_of_it(
    sizes: list[int], seed: int, stranger: bool
) -> None:
    rng = Random(seed)
    sent = b"".join(request(rng.randbytes(size)) for size in sizes)
    if rng.random() < 0.5:
        at = rng.randrange(len(sent))
        sent = sent[:at] + rng.choice(SCRAPS) + sent[at + rng.choice([0, 0, 1, 7]) :]
    places = [rng.randrange(len(sent)) for _ in range(rng.choice([0, 1, 3, 12]))]
    ends = [found.end() for found in re.finditer(rb"\r\n\r\n", sent)]
    pieces = cut(sent, *places, *rng.sample(ends, rng.randrange(len(ends) + 1)))
    known, parsed = (Connection(Served(stranger=stranger), parsing=parsing) for parsing in (False, True))
    for at_ in (known, parsed):
        at_.send(*pieces)

    def told(connection: Connection) -> bytes:
        return re.sub(rb"req-[0-9a-f]{16}", b"req-", connection.wire.data)

    assert told(known) == told(parsed)
    assert known.wire.closed == parsed.wire.closed
    count = known.statuses.count(200)
    assert known.served.bodies[:count] == parsed.served.bodies[:count]


def test_after_many_heads_that_differ_a_connection_learns_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound, "LESSONS", 2)
    at = Connection(Served(), known=False)
    for count in range(4):
        sent = request(b"a" * 20).replace(b"Host: x", b"Host: x%d" % count)
        at.send(*cut(sent, len(sent) - 5))
    fed = len(at.fed)
    at.send(*cut(sent, len(sent) - 5))

    assert len(at.fed) == fed + 2
