"""A connection that has read many answers reads the next one as a new connection would."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from router.errors import WorkerError
from router.fleet.worker import Worker
from router.request.worker_connection import WorkerConnection
from router_fakes import DONE, STREAM_HEAD, chunk, event

WORKER = Worker("w1", "http://127.0.0.1:1", now_s=0.0)


class Wire:
    """A transport that goes nowhere."""

    aborted = False

    def write(self, data: bytes) -> None: ...
    def abort(self) -> None:
        self.aborted = True

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


def connect() -> WorkerConnection:
    made = WorkerConnection(lambda _: None)
    made.connection_made(Wire())  # type: ignore[arg-type]
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
