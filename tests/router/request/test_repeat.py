"""A message recognised by its head says what a parser would have read in it, and nothing that it would not."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.request.repeat import Repeat

BEFORE = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length:  "
AFTER = b"\r\nAccept: */*\r\n\r\n"
FIRST = BEFORE + b"5" + AFTER + b"hello"
REPEAT = Repeat.of(FIRST)


class Read:
    """What httptools reads."""

    def __init__(self, data: bytes) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[tuple[bytes, bytes]] = []
        self.begun = self.ended = 0
        self.error = False
        try:
            httptools.HttpRequestParser(self).feed_data(data)
        except httptools.HttpParserError:
            self.error = True

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.bodies.append(body)

    def on_message_complete(self) -> None:
        self.ended += 1


def body(data: bytes) -> bytes | None:
    assert REPEAT is not None
    return REPEAT.body(data)


@pytest.mark.parametrize("text", [b"", b"x", b"hello", b"\r\n\r\n" + AFTER, b"1" * 1000])
def test_the_same_head_with_another_length_is_the_same_request_with_another_body(text: bytes) -> None:
    assert body(BEFORE + b"%d" % len(text) + AFTER + text) == text


@pytest.mark.parametrize(
    "data",
    [
        FIRST[:-1],
        FIRST + b"!",
        FIRST + FIRST,
        FIRST.replace(b"Host: x", b"Host: y"),
        FIRST.replace(b"*/*", b"*/*\r\nTransfer-Encoding: chunked"),
        FIRST.replace(b"  5", b"  +5"),
        FIRST.replace(b"  5", b"  "),
        FIRST.replace(b"  5", b"  5, 5"),
        FIRST.replace(b"  5", b"  5\r\nContent-Length: 5"),
        FIRST.replace(b"  5", b"  " + b"0" * 20 + b"5"),
        b"\r\n" + FIRST,
        AFTER,
        b"",
    ],
)
def test_anything_else_is_for_the_parser(data: bytes) -> None:
    assert body(data) is None


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\ncontent-length: 2 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nx-content-length: 2\r\n\r\n{}",
    ],
)
def test_a_head_is_not_remembered_unless_its_length_stands_there_once_and_alone(data: bytes) -> None:
    assert Repeat.of(data) is None


@given(
    cut=st.integers(0, len(FIRST)),
    end=st.integers(0, 12),
    put=st.one_of(
        st.binary(max_size=6),
        st.text("0123456789 \r\n:,;+-", max_size=4).map(str.encode),
        st.sampled_from([b"\r\n", b"\r\n\r\n", b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", FIRST]),
    ),
)
def test_what_is_recognised_is_what_the_parser_reads(cut: int, end: int, put: bytes) -> None:
    data = FIRST[:cut] + put + FIRST[cut + end :]
    found = body(data)
    if found is not None:
        read = Read(data)
        assert (read.error, read.begun, read.ended) == (False, 1, 1)
        assert b"".join(read.bodies) == found
        assert [name for name, _ in read.headers] == [b"host", b"content-length", b"accept"]
