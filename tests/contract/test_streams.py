"""Streams: the shape and order of events, usage, finish reasons, and that a stream says what the whole answer says."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from workers.sglang.cpu.flavours import MODEL

CHAT = "/v1/chat/completions"


def chat(text: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": MODEL, "messages": messages, "max_tokens": 3, "ignore_eos": True, "temperature": 0, **fields}


def test_a_chat_stream_is_role_then_text_then_finish(worker: Any, fresh_text: Callable[[int], str]) -> None:
    events = worker.events(CHAT, chat(fresh_text(4)))
    head = ["id", "object", "created", "model", "choices"]
    role, *texts, finish = [event["choices"][0] for event in events]

    assert all(list(event) == head for event in events)
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert len({event["id"] for event in events}) == 1
    assert all(
        list(choice) == ["index", "delta", "logprobs", "finish_reason", "matched_stop"]
        for choice in [role, *texts, finish]
    )
    assert role["delta"] == {"reasoning_content": None, "role": "assistant", "content": ""}
    assert all(list(text["delta"]) == ["reasoning_content", "content"] for text in texts)
    assert finish["delta"] == {"reasoning_content": None}
    assert [choice["finish_reason"] for choice in [role, *texts]] == [None] * (1 + len(texts))
    assert (finish["finish_reason"], finish["matched_stop"]) == ("length", None)


def test_the_text_of_a_stream_is_the_text_of_the_whole_answer(worker: Any) -> None:
    body = chat("x", max_tokens=12, regex="one two three")
    events = worker.events(CHAT, body)
    streamed = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)

    assert streamed == "one two three"
    assert worker.ok(CHAT, body)["choices"][0]["message"]["content"] == streamed


def test_usage_comes_once_at_the_end_with_no_choices_when_asked_for(
    worker: Any, fresh_text: Callable[[int], str]
) -> None:
    body = chat(fresh_text(40))
    *events, usage = worker.events(CHAT, {**body, "stream_options": {"include_usage": True}})
    again = worker.events(CHAT, {**body, "stream_options": {"include_usage": True}})[-1]

    assert all("usage" not in event for event in events)
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 3
    assert usage["usage"]["prompt_tokens_details"] is None
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 0


def test_no_usage_comes_unless_it_is_asked_for(worker: Any) -> None:
    assert all(event["choices"] for event in worker.events(CHAT, chat("x")))


def test_continuous_usage_counts_up(worker: Any) -> None:
    body = chat("x", stream_options={"include_usage": True, "continuous_usage_stats": True})
    counts = [event["usage"]["completion_tokens"] for event in worker.events(CHAT, body) if event.get("usage")]
    assert counts == sorted(counts)
    assert counts[-1] == 3
    assert len(counts) > 1


def test_a_stream_of_two_choices_finishes_both(worker: Any) -> None:
    body = chat("x", n=2, temperature=1, stream_options={"include_usage": True})
    *events, usage = worker.events(CHAT, body)
    finished = [event["choices"][0]["index"] for event in events if event["choices"][0]["finish_reason"]]

    assert sorted(finished) == [0, 1]
    assert usage["usage"]["completion_tokens"] == 6


def test_a_completion_stream_says_its_reason_in_the_last_text_event(worker: Any) -> None:
    body = {"model": MODEL, "prompt": "Once", "max_tokens": 3, "ignore_eos": True}
    *events, usage = worker.events("/v1/completions", {**body, "stream_options": {"include_usage": True}})
    choices = [event["choices"][0] for event in events]

    assert all(list(choice) == ["index", "text", "logprobs", "finish_reason", "matched_stop"] for choice in choices)
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["length"]
    assert {event["object"] for event in events} == {"text_completion"}
    assert all(event["usage"] is None for event in events)
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 3


def test_each_event_of_generate_holds_everything_so_far(worker: Any, fresh_ids: Callable[[int], list[int]]) -> None:
    body = {"input_ids": fresh_ids(8), "sampling_params": {"max_new_tokens": 4, "ignore_eos": True, "temperature": 0}}
    events = worker.events("/generate", body)

    assert [len(event["output_ids"]) for event in events] == [
        event["meta_info"]["completion_tokens"] for event in events
    ]
    for earlier, later in itertools.pairwise(events):
        assert later["output_ids"][: len(earlier["output_ids"])] == earlier["output_ids"]
    assert [event["meta_info"]["finish_reason"] for event in events[:-1]] == [None] * (len(events) - 1)
    assert events[-1]["meta_info"]["finish_reason"] == {"type": "length", "length": 4}
    assert "e2e_latency" not in events[0]["meta_info"]
    assert events[-1]["meta_info"]["e2e_latency"] > 0


def test_a_batch_streamed_by_generate_marks_whose_event_it_is(worker: Any) -> None:
    body = {"text": ["a", "b"], "sampling_params": {"max_new_tokens": 2, "ignore_eos": True}}
    events = worker.events("/generate", body)
    finished = [event["index"] for event in events if event["meta_info"]["finish_reason"]]

    assert sorted(finished) == [0, 1]


def test_details_of_cached_tokens_come_in_a_stream_too(worker: Any, fresh_text: Callable[[int], str]) -> None:
    body = chat(fresh_text(40), return_cached_tokens_details=True, stream_options={"include_usage": True})
    worker.events(CHAT, body)
    events = worker.events(CHAT, body)
    (details,) = [event["sglext"]["cached_tokens_details"] for event in events if event.get("sglext")]

    assert details["device"] == events[-1]["usage"]["prompt_tokens_details"]["cached_tokens"]
