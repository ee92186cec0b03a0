"""Token counts are found in every dialect; what is no usage is none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.request.relay import EventStream
from router.request.usage import Usage, is_usage_chunk, usage_of_body, usage_of_events

OPENAI = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13, "prompt_tokens_details": None}
CHUNK = {"id": "a", "choices": [], "usage": {**OPENAI, "prompt_tokens_details": {"cached_tokens": 8}}}
DONE = b"data: [DONE]\n\n"


def event(data: dict[str, Any], name: str | None = None) -> bytes:
    head = b"" if name is None else f"event: {name}\n".encode()
    return head + b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def found(prompt: int | None, cached: int | None, completion: int | None) -> Usage:
    return Usage(prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion)


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        ({"usage": OPENAI}, found(10, None, 3)),
        ({"usage": CHUNK["usage"]}, found(10, 8, 3)),
        ({"usage": {"input_tokens": 10, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 8}}},
         found(10, 8, 3)),
        ({"usage": {"input_tokens": 2, "output_tokens": 3, "cache_read_input_tokens": 8}}, found(10, 8, 3)),
        ({"text": "x", "meta_info": {"prompt_tokens": 10, "cached_tokens": 0, "completion_tokens": 3}},
         found(10, 0, 3)),
        ([{"meta_info": {"prompt_tokens": 1, "cached_tokens": 1}}, {"meta_info": {"prompt_tokens": 2}}],
         found(3, 1, None)),
        ({"usage": None}, Usage()),
        ({"usage": {"prompt_tokens": "many"}}, Usage()),
        ([], Usage()),
    ],
)  # fmt: skip
def test_each_dialect_is_read(body: Any, usage: Usage) -> None:
    assert usage_of_body(json.dumps(body).encode()) == usage


@pytest.mark.parametrize("body", [b"", b"x", b"[1]", b"\xff", b'{"usage": 3}'])
def test_what_is_no_usage_is_none(body: bytes) -> None:
    assert usage_of_body(body) == Usage()


def test_a_messages_stream_spreads_its_usage_over_two_events() -> None:
    start = event({"type": "message_start", "message": {"usage": {"input_tokens": 2, "cache_read_input_tokens": 8}}})
    end = event({"type": "message_delta", "usage": {"output_tokens": 3}}, "message_delta")

    assert usage_of_events([start, end]) == found(10, 8, 3)


def test_a_responses_stream_tells_it_in_its_last_event() -> None:
    usage = {"input_tokens": 10, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 8}}

    assert usage_of_events([event({"response": {"usage": usage}}, "response.completed")]) == found(10, 8, 3)


@pytest.mark.parametrize(
    ("data", "only_usage"),
    [
        (CHUNK, True),
        ({**CHUNK, "choices": [{"delta": {"content": "x"}}]}, False),
        ({"choices": [], "usage": None, "sglext": {"cached_tokens_details": {"device": 8}}}, False),
        ({"usage": OPENAI}, False),
        ({"choices": [], "usage": "text"}, False),
    ],
)
def test_only_a_chunk_with_usage_and_no_choices_is_a_usage_chunk(data: dict[str, Any], only_usage: bool) -> None:
    assert is_usage_chunk(event(data)) is only_usage


words = st.sampled_from(["a", '"', "\n", "\n\n", "\u00e9", '"usage":{', "data: [DONE]\n\n"])
texts = st.lists(st.lists(words, max_size=4).map("".join), max_size=6)


@given(texts, st.lists(st.integers(1, 60), max_size=12))
def test_however_a_stream_is_cut_the_client_sees_all_of_it_but_the_usage_chunk(
    deltas: list[str], sizes: list[int]
) -> None:
    shown = b"".join(event({"choices": [{"index": 0, "delta": {"content": delta}}]}) for delta in deltas)
    whole = shown + event(CHUNK) + DONE
    stream = EventStream("/v1/chat/completions", hide_usage=True)
    received = b""
    for size in sizes:
        received += stream.feed(whole[:size])
        whole = whole[size:]
    received += stream.feed(whole)

    assert received == shown + DONE
    assert stream.usage() == found(10, 8, 3)
    assert stream.ended
    assert stream.events == len(deltas) + 1


@given(texts)
def test_of_events_that_come_one_by_one_the_client_sees_all_but_the_usage_chunk_wherever_it_stands(
    deltas: list[str],
) -> None:
    told = [event({"id": "a", "choices": [{"index": 0, "delta": {"content": text}}]}) for text in deltas]
    first, *others = told or [event({"id": "a", "choices": [{"index": 0}]})]
    later = event({"id": "b", "choices": [{"index": 0, "delta": {"content": '"usage":{'}}]})
    stream = EventStream("/v1/chat/completions", hide_usage=True)
    received = [stream.feed(each) for each in (first, event(CHUNK), *others, event({"id": "a", **CHUNK}), later, DONE)]

    assert received == [first, b"", *others, b"", later, DONE]
    assert stream.usage() == found(10, 8, 3)
    assert (stream.ended, stream.events) == (True, len(others) + 3)


def test_a_client_that_asked_sees_the_usage_chunk() -> None:
    stream = EventStream("/v1/chat/completions")

    assert stream.feed(event(CHUNK) + DONE) == event(CHUNK) + DONE


def test_an_event_that_tells_usage_beside_other_things_is_not_hidden() -> None:
    stream = EventStream("/v1/chat/completions", hide_usage=True)
    told = b'data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":1}}\n\n'
    named = b'event: x\ndata: {"choices":[],"usage":{"prompt_tokens":1}}\n\n'

    assert stream.feed(told) == told
    assert stream.feed(named) == named
