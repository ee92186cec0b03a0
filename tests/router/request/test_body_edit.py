"""What the router adds to a body, and that it adds nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.fleet.server_info import ServerFacts
from router.fleet.worker import Worker
from router.request.body_edit import body_for, can_add, with_fields
from router.request.parse import parse

CHAT = "/v1/chat/completions"
MESSAGES = {"messages": [{"role": "user", "content": "hi"}]}

json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x), max_leaves=5)
objects = st.dictionaries(st.text(), json_values, min_size=1)
spaces = st.text(alphabet=" \t\r\n", max_size=5)


def worker(rank: int | None = None, **facts: Any) -> Worker:
    made = Worker("w", "http://w", now_s=0.0, rank=rank)
    made.facts = ServerFacts(identity="x", **facts) if facts else None
    return made


def sent(body: dict[str, Any], to: Worker, path: str = CHAT, *, ask_usage: bool = True) -> tuple[dict[str, Any], bool]:
    raw = json.dumps(body).encode()
    edited, hide = body_for(raw, parse(path, raw), to, ask_usage=ask_usage)
    return {key: value for key, value in json.loads(edited).items() if body.get(key) != value}, hide


@given(objects, spaces, spaces, st.booleans())
def test_a_body_with_added_fields_means_the_same_plus_these_fields(
    body: dict[str, Any], before: str, inside: str, ascii_only: bool
) -> None:
    raw = (before + "{" + inside + json.dumps(body, ensure_ascii=ascii_only)[1:]).encode("utf-8", "surrogatepass")
    added = {"stream_options": {"include_usage": True}, "routed_dp_rank": 3}

    edited = with_fields(raw, added)

    assert json.loads(edited) == {**added, **body}
    assert edited.endswith(raw.lstrip()[1:])


@pytest.mark.parametrize(
    ("body", "safe"),
    [
        (b'{"a":1}', True),
        (b' \r\n\t{"a":1}', True),
        ('{"a":1}'.encode("utf-16-le"), False),
        ('{"a":1}'.encode("utf-16"), False),
        (b'\xef\xbb\xbf{"a":1}', False),
        (b" " * 65 + b'{"a":1}', False),
        (b"", False),
    ],
)
def test_only_what_is_surely_an_object_in_utf_8_is_edited(body: bytes, safe: bool) -> None:
    assert can_add(body) is safe


def test_usage_is_asked_for_exactly_where_a_stream_does_not_tell_it_and_the_client_did_not_say() -> None:
    asked = {"stream_options": {"include_usage": True}}
    stream = {**MESSAGES, "stream": True}

    assert sent(stream, worker()) == (asked, True)
    assert sent({"prompt": "x", "stream": True}, worker(), "/v1/completions") == (asked, True)
    assert sent(MESSAGES, worker()) == ({}, False)
    assert sent({"text": "x", "stream": True}, worker(), "/generate") == ({}, False)
    assert sent(stream, worker(streams_usage=True)) == ({}, False)
    assert sent(stream, worker(), ask_usage=False) == ({}, False)
    for said in ({"include_usage": True}, {"include_usage": False}, None, {}):
        assert sent({**stream, "stream_options": said}, worker()) == ({}, False)


def test_a_rank_goes_into_the_body_where_the_header_is_not_read() -> None:
    new, old = worker(1, version="0.5.21"), worker(1, version="0.5.9")

    assert sent({"text": "x"}, new, "/generate") == ({"routed_dp_rank": 1}, False)
    assert sent(MESSAGES, new) == ({}, False)
    assert sent(MESSAGES, old) == ({"data_parallel_rank": 1}, False)
    assert sent({"text": "x"}, worker(0), "/generate") == ({"routed_dp_rank": 0}, False)
    assert sent({"text": "x", "routed_dp_rank": 7}, new, "/generate") == ({}, False)
    assert sent({"text": "x"}, worker(), "/generate") == ({}, False)


def test_a_body_that_cannot_be_edited_goes_as_it_is_and_nothing_is_hidden() -> None:
    raw = json.dumps({**MESSAGES, "stream": True}).encode("utf-16")

    assert body_for(raw, parse(CHAT, raw), worker(2, version="0.5.9"), ask_usage=True) == (raw, False)
