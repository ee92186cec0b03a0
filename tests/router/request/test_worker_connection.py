"""A connection that has read many answers reads the next one as a new connection would."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router.errors import WorkerError, WorkerHungUp, WorkerTimeout
from router.fleet.worker import Worker
from router.request.strand import Gate, Strand
from router.request.worker_connection import BUFFER_BYTES, MAX_HEADER_BYTES, WorkerConnection, data_of_chunk
from router_fakes import DONE, STREAM_HEAD, chunk, event

WORKER = Worker("w1", "http://127.0.0.1:1", now_s=0.0)


class Wire:
    """A transport that goes nowhere."""

    aborted = False
    reads = True

    def write(self, data: bytes) -> None: ...
    def abort(self) -> None:
        self.aborted = True

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


def connect(wire: Wire | None = None) -> WorkerConnection:
    made = WorkerConnection(lambda _: None)
    made.connection_made(wire or Wire())  # type: ignore[arg-type]
    return made


def asked(wire: Wire | None = None) -> WorkerConnection:
    """One that waits for an answer."""
    made = connect(wire)
    made.begin(WORKER, b"POST / HTTP/1.1\r\n\r\n", b"", 0.0)
    return made


def done(work: Coroutine[Any, Any, Any]) -> Any:
    """What it returns; it must not wait."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


def read(connection: WorkerConnection, pieces: list[bytes]) -> Any:
    """Everything that is to be known of one answer."""
    connection.begin(WORKER, b"POST / HTTP/1.1\r\n\r\n", b"", 0.0)
    for piece in pieces:
        connection.data_received(piece)
    try:
        done(connection.answered())
        body = done(connection.read())
    except WorkerError as error:
        return type(error)
    finally:
        connection.end()
    head = connection.head
    return (
        body, connection.status, head.status, head.headers, head.lines, connection.streams, connection.retry_after,
        connection.length_bytes, connection.reusable,
    )  # fmt: skip


def whole(body: bytes, status: int = 200, headers: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\nserver: a\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


STREAM = STREAM_HEAD + chunk(event("a")) + chunk(DONE) + b"0\r\n\r\n"
ANSWERS = st.one_of(
    st.builds(
        whole,
        st.sampled_from([b"", b"{}", b'{"a": 1}', b"\r\n\r\n", b"x" * 2000]),
        st.sampled_from([200, 200, 200, 429, 500]),
        st.sampled_from(["", "", "date: 1\r\n", "date: 2\r\n", "retry-after: 3\r\n", "connection: close\r\n",
                         "content-type: text/event-stream\r\n", "x-request-id: theirs\r\n"]),
    ),
    st.just(STREAM),
    st.just(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\ncontent-length: 2\r\n\r\n" + whole(b"{}")),
    st.just(b"HTTP/1.1 100 Continue\r\n\r\n" + whole(b"[]")),
    st.just(b"HTTP/1.1 204 X\r\n\r\n"),
    st.just(whole(b"{}") + b"!"),
    st.just(b"nonsense\r\n\r\n"),
)  # fmt: skip


@given(st.lists(st.tuples(ANSWERS, st.none() | st.integers(1, 200)), min_size=2, max_size=12))
@example([(whole(b"{}"), None), (STREAM, len(STREAM_HEAD)), (whole(b"{}"), None)])
@example([(whole(b"{}"), None), (whole(b"{}", 500), 20), (whole(b"{}"), None)])
@settings(max_examples=300)
def test_what_a_used_connection_reads_is_what_a_new_one_would(answers: list[tuple[bytes, int | None]]) -> None:
    used = connect()
    for data, cut in answers:
        if not used.reusable:
            used = connect()
        pieces = [data] if cut is None else [piece for piece in (data[:cut], data[cut:]) if piece]
        assert read(used, pieces) == read(connect(), pieces)


def test_an_answer_that_repeats_the_head_of_the_one_before_is_recognised() -> None:
    connection = connect()
    first = read(connection, [whole(b"{}")])
    parsed = connection._parser
    connection._parser = None  # type: ignore[assignment]
    second = read(connection, [whole(b"[1, 2]")])
    connection._parser = parsed
    third = read(connection, [whole(b"{}", 429)])

    assert (first[0], second[0], third[0]) == (b"{}", b"[1, 2]", b"{}")
    assert first[1:7] == second[1:7]
    assert (third[1], third[4][:13]) == (429, b"HTTP/1.1 429 ")


# -- a client that is slower than the worker --------------------------------------------------------------------------

CHUNKED = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n"
MUCH = b"x" * (BUFFER_BYTES + 1)


def test_more_than_the_buffer_is_not_read_until_somebody_takes_it() -> None:
    wire = Wire()
    connection = asked(wire)
    connection.data_received(CHUNKED + chunk(b"a"))
    before = (wire.reads, connection.waits_for_client)
    connection.data_received(chunk(MUCH))
    full = (wire.reads, connection.waits_for_client)
    piece = done(connection.piece())

    assert (before, full) == ((True, False), (False, True))
    assert piece == b"a" + MUCH
    assert (wire.reads, connection.waits_for_client) == (True, False)


def test_who_wants_the_whole_body_has_it_read_however_long_it_is() -> None:
    wire = Wire()
    connection = asked(wire)
    connection.data_received(CHUNKED + chunk(MUCH))
    paused = not wire.reads
    reading = connection.read()
    reading.send(None)
    after = wire.reads
    connection.data_received(chunk(MUCH) + chunk(b""))

    assert (paused, after, wire.reads) == (True, True, True)
    assert done(reading) == MUCH * 2


def test_what_was_not_read_because_the_client_was_slow_is_read_again_for_the_next_request() -> None:
    wire = Wire()
    connection = asked(wire)
    connection.data_received(CHUNKED + chunk(MUCH) + chunk(b""))
    paused = not wire.reads
    connection.end()

    assert (paused, wire.reads, connection.reusable) == (True, True, True)


@pytest.mark.parametrize(
    ("piece", "begins"),
    [
        (b"5\r\nabc\n\n\r\n", 3),
        (b"1a\r\n" + b"x" * 24 + b"\n\n\r\n", 4),
        (b"0a\r\n" + b"x" * 8 + b"\n\n\r\n", 4),
        (b"0000000a\r\n" + b"x" * 8 + b"\n\n\r\n", 10),
        (b"00000000a\r\n" + b"x" * 8 + b"\n\n\r\n", 0),
        (b"A\r\n" + b"x" * 8 + b"\n\n\r\n", 0),
        (b"5;name=1\r\nabc\n\n\r\n", 0),
        (b"4\r\nabc\n\n\r\n", 0),
        (b"6\r\nabc\n\n\r\n", 0),
        (b"5\r\nabc\n\n\r\n5\r\nabc\n\n\r\n", 0),
        (b"5\n\nabc\n\n\r\n", 0),
        (b"\n\n\r\n", 0),
        (b"\r\n", 0),
    ],
)
def test_only_a_piece_that_is_one_whole_chunk_is_taken_for_one(piece: bytes, begins: int) -> None:
    assert data_of_chunk(piece) == begins


class Taker:
    """What a stream is poured into: it is full after each piece until it is told that the client reads."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.full = False
        self.error: Exception | None = None
        self._gate = Gate()

    def take(self, piece: bytes, chunk: bytes | None) -> bool:
        if self.error is not None:
            raise self.error
        self.taken.append(piece)
        return self.full

    async def drained(self) -> None:
        while self.full:
            await self._gate

    def client_reads(self) -> None:
        self.full = False
        self._gate.open()

    def pour(self, connection: WorkerConnection) -> tuple[Strand, list[BaseException]]:
        errors: list[BaseException] = []

        async def work() -> None:
            try:
                await connection.pour(self.take, self.drained)
            except (WorkerError, ValueError) as error:
                errors.append(error)

        strand = Strand(asyncio.get_running_loop())
        strand.start(work())
        return strand, errors


@pytest.mark.parametrize("waits_first", [True, False])
async def test_a_stream_stands_still_while_the_client_does_not_read_and_nothing_of_it_is_lost(
    waits_first: bool,
) -> None:
    wire, taker = Wire(), Taker()
    connection = asked(wire)
    taker.full = True
    if waits_first:
        connection.data_received(CHUNKED)
        strand, errors = taker.pour(connection)
        connection.data_received(chunk(b"a"))
    else:
        connection.data_received(CHUNKED + chunk(b"a"))
        strand, errors = taker.pour(connection)
    paused = (wire.reads, list(taker.taken))
    connection.data_received(chunk(b"b"))  # the transport had it already
    still = list(taker.taken)
    taker.client_reads()
    connection.data_received(chunk(b"c") + chunk(b""))

    assert paused == (False, [b"a"])
    assert still == [b"a"]
    assert taker.taken == [b"a", b"b", b"c"]
    assert (strand.done(), errors, wire.reads) == (True, [], True)


async def test_an_error_of_whoever_takes_the_stream_is_raised_where_it_is_poured() -> None:
    taker = Taker()
    connection = asked()
    connection.data_received(CHUNKED)
    strand, errors = taker.pour(connection)
    taker.error = ValueError("cannot take it")
    connection.data_received(chunk(b"a"))

    assert strand.done()
    assert errors == [taker.error]


async def test_a_stream_whose_connection_ends_while_the_client_does_not_read_is_cut_when_it_does() -> None:
    taker = Taker()
    connection = asked()
    taker.full = True
    connection.data_received(CHUNKED + chunk(b"a"))
    strand, errors = taker.pour(connection)
    connection.connection_lost(None)
    before = strand.done()
    taker.client_reads()

    assert (before, strand.done(), taker.taken) == (False, True, [b"a"])
    assert [type(error) for error in errors] == [WorkerHungUp]


# -- ends -----------------------------------------------------------------------------------------------------------


def test_an_answer_of_unknown_length_ends_with_its_connection_unless_that_breaks() -> None:
    for broken in (None, ConnectionResetError()):
        connection = asked()
        connection.data_received(b"HTTP/1.1 200 X\r\n\r\nhello")
        connection.connection_lost(broken)
        if broken is None:
            assert done(connection.read()) == b"hello"
        else:
            with pytest.raises(WorkerHungUp):
                done(connection.read())
        connection.end()
        assert not connection.reusable


def test_bytes_that_nobody_asked_for_end_the_connection() -> None:
    wire = Wire()
    connection = connect(wire)
    connection.data_received(b"HTTP/1.1 408 X\r\n\r\n")

    assert wire.aborted
    assert not connection.reusable


def test_headers_without_end_are_broken_off() -> None:
    wire = Wire()
    connection = asked(wire)
    connection.data_received(b"HTTP/1.1 200 X\r\nx: " + b"y" * MAX_HEADER_BYTES)

    assert wire.aborted
    with pytest.raises(WorkerHungUp, match="too many bytes of headers"):
        done(connection.answered())


def test_the_first_reason_why_an_exchange_failed_is_told_also_once_the_connection_is_gone() -> None:
    connection = asked()
    connection.fail(WorkerTimeout("first"))
    connection.connection_lost(None)
    connection.fail(WorkerTimeout("second"))
    connection.close()

    with pytest.raises(WorkerTimeout, match="first"):
        done(connection.answered())


def test_what_follows_a_chunked_body_is_no_header_of_the_answer() -> None:
    connection = asked()
    connection.data_received(CHUNKED + chunk(b"a") + b"0\r\nx-trailer: 1\r\n\r\n")

    assert done(connection.read()) == b"a"
    assert b"x-trailer" not in dict(connection.head.headers)


# -- events that come as one chunk -------------------------------------------------------------------------------------

PAYLOADS = st.sampled_from([event("a"), event("b") + event("c"), DONE, b"data: half", b" of it\n\n", b"\r\n", b"\n\n"])
CHUNKS = st.builds(
    lambda payload, spelling: spelling % len(payload) + b"\r\n" + payload + b"\r\n",
    PAYLOADS,
    st.sampled_from([b"%x", b"%x", b"%x", b"%X", b"0%x", b"%x;ext=1", b"%012x"]),
)


class Poured:
    """Everything that a connection handed on of one stream, and the chunks that came with it."""

    def __init__(self, connection: WorkerConnection) -> None:
        self.connection = connection
        self.data = b""
        self.chunks: list[bytes] = []
        self.full = False
        self.failure: Exception | None = None
        connection.begin(WORKER, b"POST / HTTP/1.1\r\n\r\n", b"", 0.0)
        connection.data_received(STREAM_HEAD)
        self.work = connection.pour(self.take, self.drained)
        self.work.send(None)  # it waits

    def take(self, piece: bytes, one: bytes | None) -> bool:
        if self.failure is not None:
            raise self.failure
        self.data += piece
        if one is not None:
            assert one == chunk(piece)
            self.chunks.append(one)
        return self.full

    async def drained(self) -> None:
        self.full = False

    def end(self) -> str | None:
        """How it ended: None where it was whole."""
        try:
            self.work.send(None)
        except StopIteration:
            return None
        except Exception as error:  # noqa: BLE001  this is what is asked
            return type(error).__name__
        finally:
            self.work.close()
        raise AssertionError("it waits")


@given(st.lists(CHUNKS, max_size=8), st.lists(st.integers(1, 60), max_size=40))
@example([chunk(event("a"))] * 3, [len(chunk(event("a")))] * 3)
@settings(max_examples=300)
def test_a_stream_is_handed_on_alike_however_it_is_cut(chunks: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(chunks) + b"0\r\n\r\n"
    expected = read(connect(), [STREAM_HEAD + stream])[0]
    poured = Poured(connect())
    for size in sizes:
        if stream:
            poured.connection.data_received(stream[:size])
            stream = stream[size:]
    if stream:
        poured.connection.data_received(stream)

    assert poured.end() is None
    assert poured.data == expected


def test_whole_events_that_come_as_one_chunk_are_handed_on_as_that_chunk_unparsed() -> None:
    poured = Poured(connect())
    poured.connection.data_received(chunk(event("a")))
    poured.connection._parser, parser = None, poured.connection._parser  # type: ignore[assignment]
    poured.connection.data_received(chunk(event("b")))
    poured.connection.data_received(chunk(event("c") + event("d")))
    poured.connection._parser = parser
    poured.connection.data_received(chunk(DONE) + b"0\r\n\r\n")

    assert poured.end() is None
    assert poured.chunks == [chunk(event("b")), chunk(event("c") + event("d"))]
    assert poured.data == event("a") + event("b") + event("c") + event("d") + DONE


def test_what_only_looks_like_a_chunk_is_left_to_the_parser() -> None:
    for length in (b"+5", b"-1", b"0x5", b" 5", b"6"):
        lie = length + b"\r\nabc\n\n\r\n"
        poured = Poured(connect())
        poured.connection.data_received(chunk(event("a")))
        poured.connection.data_received(lie)

        assert poured.chunks == []
        if lie[:1] != b"6":  # that one is short of a byte, and may go on
            assert poured.end() == "WorkerHungUp", lie
        poured.work.close()


def test_a_full_client_and_a_failing_one_stop_what_comes_in_chunks() -> None:
    poured = Poured(connect())
    poured.connection.data_received(chunk(event("a")))
    poured.full = True
    poured.connection.data_received(chunk(event("b")))
    assert poured.connection.waits_for_client
    poured.work.send(None)  # drained, and waits again
    assert not poured.connection.waits_for_client

    poured.failure = ValueError("the client's side")
    poured.connection.data_received(chunk(event("c")))
    assert poured.end() == "ValueError"
