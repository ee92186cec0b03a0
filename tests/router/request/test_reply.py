"""How an error is told to a client whose answer has begun, in the dialect of what it asked."""

from __future__ import annotations

import json

import pytest

from router.errors import StreamCut
from router.request.reply import STATUS_LINES, error_event


@pytest.mark.parametrize(
    ("endpoint", "name", "where"),
    [("/v1/chat/completions", None, ("error",)), ("/v1/messages", "error", ("error",)), ("/v1/responses", "error", ())],
)
def test_an_error_inside_a_stream_is_one_event_of_its_dialect(
    endpoint: str, name: str | None, where: tuple[str, ...]
) -> None:
    event = error_event(endpoint, StreamCut("It broke."))
    *named, data, end, rest = event.decode().split("\n")
    told = json.loads(data.removeprefix("data: "))
    for key in where:
        told = told[key]

    assert named == ([] if name is None else [f"event: {name}"])
    assert (end, rest) == ("", "")
    assert told["message"] == "It broke."


def test_a_status_that_has_no_name_has_a_line_all_the_same() -> None:
    assert STATUS_LINES[404] == b"HTTP/1.1 404 Not Found\r\n"
    assert STATUS_LINES[799] == b"HTTP/1.1 799 \r\n"
