"""One model call on a client's connection, over a transport that goes nowhere: when it is served, how it is written."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from router.clock import monotonic
from router.errors import InvalidApiKey
from router.request.dispatch import Dispatcher
from router.request.endpoints import ModelCalls
from router.request.head import Head
from router.request.model_call import JOIN_BYTES, STRANGER_BYTES, ModelCall
from router.request.raw_request import RawRequest
from router.request.reply import AnswerHead, Reply
from router.request.strand import Strand
from router.telemetry.tracing import Tracer

PLAIN = AnswerHead(200, [(b"content-type", b"application/json")])
EVENTS = AnswerHead(200, [(b"content-type", b"text/event-stream")])


class Wire:
    """A transport: what was written, and whether it was closed or broken off."""

    def __init__(self) -> None:
        self.data = b""
        self.writes: list[int] = []
        self.closed = self.aborted = False

    def write(self, data: bytes) -> None:
        assert data
        self.data += data
        self.writes.append(len(data))

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.closed


class Script:
    """Stands for the dispatcher: keeps what it is given, and answers as `work` says."""

    def __init__(self, *, stranger: bool = False) -> None:
        self.bodies: list[bytes] = []
        self.raw: list[RawRequest] = []
        self._stranger = stranger

    async def work(self, reply: Reply) -> None:
        reply.answer(PLAIN, [], b"{}")

    async def dispatch(self, raw: RawRequest, reply: Reply, strand: Strand) -> None:
        self.raw.append(raw)
        self.bodies.append(raw.body)
        await self.work(reply)

    def admit_stranger(self, head: Head) -> None:
        if self._stranger:
            raise InvalidApiKey("Who are you?")


class Made:
    """A call, its transport and its dispatcher."""

    def __init__(self, script: Script, length_bytes: int | None = None, **options: Any) -> None:
        self.wire, self.script = Wire(), script
        self.ended: list[ModelCall] = []
        self.calls = ModelCalls(cast("Dispatcher", script), 100_000, monotonic, options.pop("tracer", None))
        head = Head("/generate", b"/generate", [(b"host", b"x")], **options)
        loop = asyncio.get_running_loop()
        wire = cast("asyncio.Transport", self.wire)
        self.call = ModelCall(self.calls, head, length_bytes, wire, loop, set(), self.ended.append)


class Waits(Script):
    """Answers when told to, with a stream of which each piece waits for the client where it must."""

    def __init__(self, *pieces: bytes, length_bytes: int | None = None, head: AnswerHead = EVENTS) -> None:
        super().__init__()
        self._pieces, self._length_bytes, self._head = pieces, length_bytes, head
        self.written = 0

    async def work(self, reply: Reply) -> None:
        reply.start(self._head, [], self._length_bytes)
        for piece in self._pieces:
            full = reply.write(piece)
            self.written += 1
            if full:
                await reply.drained()
        reply.finish()


async def test_a_body_of_a_stranger_is_not_read_when_it_is_large_also_when_it_came_at_once() -> None:
    small, large = Made(Script(stranger=True), 10), Made(Script(stranger=True), STRANGER_BYTES + 1)
    for made in (small, large):
        made.call.take_whole(b"0123456789")

    assert small.script.bodies == [b"0123456789"]
    assert large.script.bodies == []
    assert large.wire.data.startswith(b"HTTP/1.1 401 ")
    assert large.wire.closed


async def test_a_call_that_is_too_large_before_its_turn_is_refused_in_its_turn() -> None:
    made = Made(Script())
    made.call.take_body(b"x" * 100_001, its_turn=False)
    before = made.wire.data
    made.call.end_body(its_turn=False)
    made.call.take_turn()

    assert before == b""
    assert made.wire.data.startswith(b"HTTP/1.1 413 ")
    assert made.script.bodies == []


@pytest.mark.parametrize("size", [2, JOIN_BYTES, JOIN_BYTES + 1, 80_000])
async def test_a_whole_answer_is_written_whole_and_a_short_one_at_once(size: int) -> None:
    script = Script()

    async def work(reply: Reply) -> None:
        reply.answer(PLAIN, [(b"x-own", b"1")], b"y" * size)

    script.work = work  # type: ignore[method-assign]
    made = Made(script)
    made.call.take_whole(b"{}")

    head, _, body = made.wire.data.partition(b"\r\n\r\n")
    assert head == b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-own: 1\r\ncontent-length: %d" % size
    assert body == b"y" * size
    assert len(made.wire.writes) == (1 if size <= JOIN_BYTES else 2)
    assert made.ended == [made.call]
    assert not made.wire.closed


@pytest.mark.parametrize("size", [3, JOIN_BYTES + 1])
@pytest.mark.parametrize("framing", ["chunks", "a length", "its end"])
async def test_pieces_are_framed_as_the_client_can_read_them_whatever_their_size(size: int, framing: str) -> None:
    length_bytes = 2 * size if framing == "a length" else None
    version = "1.0" if framing == "its end" else "1.1"
    made = Made(Waits(b"a" * size, b"", b"b" * size, length_bytes=length_bytes), version=version)
    made.call.take_whole(b"{}")

    head, _, body = made.wire.data.partition(b"\r\n\r\n")
    a, b = b"a" * size, b"b" * size
    if framing == "chunks":
        assert head.endswith(b"transfer-encoding: chunked")
        assert body == b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (size, a, size, b)
    else:
        assert (b"content-length" in head, b"chunked" in head) == (framing == "a length", False)
        assert body == a + b
    assert made.wire.closed is (framing == "its end")


async def test_a_client_that_reads_too_slowly_is_waited_for_and_one_that_reads_on_gets_the_rest() -> None:
    script = Waits(b"a\n\n", b"b\n\n")
    made = Made(script)
    made.call.full = True
    made.call.take_whole(b"{}")
    before = script.written
    made.call.client_reads()

    assert (before, script.written) == (1, 2)
    assert made.wire.data.endswith(b"a\n\n\r\n3\r\nb\n\n\r\n0\r\n\r\n")
    made.call.client_reads()  # nothing waits: nothing happens
    assert made.ended == [made.call]


@pytest.mark.parametrize("whole", [True, False])
async def test_to_a_client_that_has_gone_nothing_is_written_and_its_call_ends(whole: bool) -> None:
    """What is served notices its cancellation where it waits next; until then it may answer."""
    script = Script()

    async def work(reply: Reply) -> None:
        made.call.client_left()
        if whole:
            reply.answer(PLAIN, [], b"{}")
        else:
            reply.start(EVENTS, [], None)
            reply.write(b"a\n\n")
            reply.finish()

    script.work = work  # type: ignore[method-assign]
    made = Made(script)
    made.call.take_whole(b"{}")

    assert made.wire.data == b""
    assert made.ended == [made.call]


class Never:
    """A tracer that samples no request."""

    def begin(self, headers: object) -> None:
        return None


async def test_a_request_that_is_not_traced_tells_its_worker_no_parent() -> None:
    made = Made(Script(), tracer=cast("Tracer", Never()))
    made.call.take_whole(b"{}")
    [raw] = made.script.raw

    assert raw.trace is None
    assert raw.own_lines == b"x-request-id: %b\r\n" % raw.request_id.encode()
