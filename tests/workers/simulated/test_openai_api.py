"""The OpenAI routes: bodies and events as SGLang 0.5.21 gives them, down to the order of fields."""

from __future__ import annotations

import json
from typing import Any

import pytest

from workers.simulated.tokenizer import EOS_ID

LONG = "tell me about caches and how a prefix is reused in them, please, at some length; " * 4


async def test_a_chat_answer_has_the_fields_of_the_real_server_in_its_order(worker: Any) -> None:
    answer = (await worker.chat("hello", max_tokens=3)).json()
    assert list(answer) == ["id", "object", "created", "model", "choices", "usage", "metadata"]
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "m"
    (choice,) = answer["choices"]
    assert list(choice) == ["index", "message", "logprobs", "finish_reason", "matched_stop"]
    assert list(choice["message"]) == ["role", "content", "reasoning_content", "tool_calls"]
    assert choice["finish_reason"] == "length"
    assert len(choice["message"]["content"]) == 12
    assert list(answer["usage"]) == [
        "prompt_tokens",
        "total_tokens",
        "completion_tokens",
        "prompt_tokens_details",
        "reasoning_tokens",
    ]
    assert answer["usage"]["completion_tokens"] == 3
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 3
    assert answer["metadata"]["weight_versions"] == [{"version": "default", "start": 0, "end": 3}]


async def test_cached_tokens_are_null_at_first_and_reported_when_the_prompt_comes_again(worker: Any) -> None:
    first = (await worker.chat(LONG, max_tokens=2)).json()["usage"]
    again = (await worker.chat(LONG, max_tokens=2)).json()["usage"]
    assert first["prompt_tokens_details"] is None
    assert again["prompt_tokens_details"]["cached_tokens"] > first["prompt_tokens"] // 2


async def test_without_the_cache_report_cached_tokens_are_never_in_usage_but_always_in_meta_info(
    start_worker: Any,
) -> None:
    async with start_worker(cache_report=False) as worker:
        for _ in range(2):
            assert (await worker.chat(LONG, max_tokens=1)).json()["usage"]["prompt_tokens_details"] is None
        body = {"text": LONG, "sampling_params": {"max_new_tokens": 1}}
        await worker.post("/generate", body)
        assert (await worker.post("/generate", body)).json()["meta_info"]["cached_tokens"] > 0


async def test_the_next_turn_of_a_conversation_reuses_the_answer_that_was_generated(worker: Any) -> None:
    messages = [{"role": "user", "content": LONG}]
    first = (await worker.chat(messages, max_tokens=64)).json()
    said = first["choices"][0]["message"]["content"]
    messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "go on"}]
    usage = (await worker.chat(messages, max_tokens=1)).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > first["usage"]["prompt_tokens"]


async def test_a_chat_stream_is_role_then_text_then_finish_then_usage_then_done(worker: Any) -> None:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 3,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    events = await worker.events("/v1/chat/completions", body)
    assert events.pop() == "[DONE]"
    usage = events.pop()
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 3
    assert usage["usage"]["prompt_tokens_details"] is None
    role, *texts, finish = [event["choices"][0] for event in events]
    assert role["delta"] == {"reasoning_content": None, "role": "assistant", "content": ""}
    assert [list(text["delta"]) for text in texts] == [["reasoning_content", "content"]] * 3
    assert finish["delta"] == {"reasoning_content": None}
    assert finish["finish_reason"] == "length"
    assert all("usage" not in event for event in events)
    assert len({event["id"] for event in [*events, usage]}) == 1
    whole = (await worker.chat("hello", max_tokens=3)).json()
    assert "".join(text["delta"]["content"] for text in texts) == whole["choices"][0]["message"]["content"]


async def test_no_usage_event_comes_unless_it_is_asked_for(worker: Any) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2, "stream": True}
    events = await worker.events("/v1/chat/completions", body)
    assert all(event["choices"] for event in events[:-1])


async def test_continuous_usage_counts_up_in_every_text_event(worker: Any) -> None:
    body = {
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 3,
        "stream": True,
        "stream_options": {"continuous_usage_stats": True},
    }
    events = await worker.events("/v1/chat/completions", body)
    counts = [event["usage"]["completion_tokens"] for event in events[:-1] if "usage" in event]
    assert counts == [1, 2, 3]


async def test_several_choices_share_one_prompt_and_differ(worker: Any) -> None:
    answer = (await worker.chat("hello", max_tokens=8, n=3)).json()
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert answer["usage"]["completion_tokens"] == 24
    single = (await worker.chat("hello", max_tokens=8)).json()["usage"]
    assert answer["usage"]["prompt_tokens"] == single["prompt_tokens"]


async def test_a_stream_of_several_choices_finishes_each(worker: Any) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2, "n": 2, "stream": True}
    events = [event["choices"][0] for event in (await worker.events("/v1/chat/completions", body))[:-1]]
    assert sorted(event["index"] for event in events if event["finish_reason"]) == [0, 1]
    texts = dict.fromkeys((0, 1), "")
    for event in events:
        texts[event["index"]] += event["delta"].get("content") or ""
    assert all(len(text) == 8 for text in texts.values())


async def test_an_answer_that_ends_by_itself_names_the_end_token(worker: Any) -> None:
    choice = (await worker.chat("hello")).json()["choices"][0]
    assert (choice["finish_reason"], choice["matched_stop"]) == ("stop", EOS_ID)


async def test_a_stop_string_is_named_and_left_out(worker: Any) -> None:
    whole = (await worker.chat("hello", max_tokens=30)).json()["choices"][0]["message"]["content"]
    stop = whole[20:24]
    choice = (await worker.chat("hello", max_tokens=30, stop=stop)).json()["choices"][0]
    assert choice["message"]["content"] == whole[: whole.index(stop)]
    assert (choice["finish_reason"], choice["matched_stop"]) == ("stop", stop)


async def test_max_completion_tokens_wins_over_max_tokens(worker: Any) -> None:
    usage = (await worker.chat("x", max_tokens=9, max_completion_tokens=4)).json()["usage"]
    assert usage["completion_tokens"] == 4


async def test_zero_tokens_may_be_asked_for(worker: Any) -> None:
    answer = (await worker.chat("x", max_tokens=0)).json()
    assert answer["usage"]["completion_tokens"] == 0
    assert answer["choices"][0]["message"]["content"] == ""


async def test_the_request_id_given_is_the_id_answered_and_a_second_use_meanwhile_is_refused(worker: Any) -> None:
    assert (await worker.chat("x", max_tokens=1, rid="mine")).json()["id"] == "mine"
    assert (await worker.chat("x", max_tokens=1, rid="mine")).json()["id"] == "mine"


async def test_details_of_cached_tokens_come_when_asked_for(worker: Any) -> None:
    await worker.chat(LONG, max_tokens=1)
    answer = (await worker.chat(LONG, max_tokens=1, return_cached_tokens_details=True)).json()
    details = answer["sglext"]["cached_tokens_details"]
    assert details == {"device": answer["usage"]["prompt_tokens_details"]["cached_tokens"], "host": 0}
    body = {
        "messages": [{"role": "user", "content": LONG}],
        "max_tokens": 1,
        "stream": True,
        "return_cached_tokens_details": True,
    }
    events = await worker.events("/v1/chat/completions", body)
    assert events[-2]["sglext"]["cached_tokens_details"] == details


async def test_a_json_schema_is_obeyed(worker: Any) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    answer = (await worker.chat("x", response_format=wanted, max_tokens=50)).json()
    assert isinstance(json.loads(answer["choices"][0]["message"]["content"])["ok"], bool)


@pytest.mark.parametrize(
    ("fields", "message", "kind"),
    [
        ({"messages": []}, "Messages cannot be empty.", "BadRequestError"),
        ({"temperature": -1}, "temperature must be a non-negative finite number, got -1.0.", "BadRequestError"),
        ({"top_p": 2}, "top_p must be in (0, 1], got 2.0.", "BadRequestError"),
        ({"max_tokens": -1}, "max_new_tokens must be at least 0, got -1.", "BadRequestError"),
        ({"stop": ["a"] * 40}, "at most 32 stop strings are allowed, got 40", "BadRequestError"),
        ({"routed_dp_rank": 5}, "routed_dp_rank=5 out of range [0, 1)", "BadRequestError"),
        ({"tool_choice": "required"}, "Tools cannot be empty if tool choice is set to required.", "BadRequestError"),
        ({"messages": "x"}, None, "Bad Request"),
        ({"messages": [{"role": "bogus", "content": "x"}]}, None, "Bad Request"),
        ({"messages": [{"role": "user", "content": 5}]}, None, "Bad Request"),
        ({"messages": [{"role": "user", "content": None}]}, None, "Bad Request"),
        ({"messages": [{"role": "user", "content": [{"type": "bogus"}]}]}, None, "Bad Request"),
        ({"messages": [{"role": "user", "content": ["text"]}]}, None, "Bad Request"),
        ({"max_tokens": "many"}, None, "Bad Request"),
        ({"model": "m:adapter"}, None, "BadRequestError"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, None, "BadRequestError"),
    ],
    ids=str,
)
async def test_a_bad_chat_request_gets_the_real_servers_error(
    worker: Any, fields: dict[str, Any], message: str | None, kind: str
) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}
    response = await worker.post("/v1/chat/completions", body)
    assert response.status_code == 400
    error = response.json()
    assert list(error) == ["object", "message", "type", "param", "code"]
    assert (error["object"], error["type"], error["param"], error["code"]) == ("error", kind, None, 400)
    assert error["message"] == message or (message is None and error["message"])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"messages":'])
async def test_a_body_that_is_no_request_gets_400_also_when_streaming(worker: Any, content: bytes) -> None:
    response = await worker.client.post(
        "/v1/chat/completions", content=content, headers={"content-type": "application/json"}
    )
    assert response.status_code == 400
    assert response.json()["type"] == "Bad Request"


async def test_a_bad_request_for_a_stream_is_refused_with_a_status_not_with_an_event(worker: Any) -> None:
    response = await worker.chat("x", stream=True, temperature=-1)
    assert response.status_code == 400


async def test_the_data_parallel_rank_header_wins_over_the_body_and_must_be_a_number(start_worker: Any) -> None:
    async with start_worker(dp_size=2) as worker:
        for header, body, status in (("1", 0, 200), ("0", None, 200), ("2", 0, 400), ("x", 0, 400)):
            response = await worker.post(
                "/v1/chat/completions",
                {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1, "routed_dp_rank": body},
                headers={"X-Data-Parallel-Rank": header},
            )
            assert response.status_code == status
        answer = await worker.post("/generate", {"text": "x", "data_parallel_rank": 1, "sampling_params": {}})
        assert answer.json()["meta_info"]["dp_rank"] == 1


async def test_a_rank_has_a_cache_of_its_own(start_worker: Any) -> None:
    async with start_worker(dp_size=2) as worker:
        for rank, cached in ((0, False), (0, True), (1, False), (1, True)):
            usage = (await worker.chat(LONG, max_tokens=1, routed_dp_rank=rank)).json()["usage"]
            assert bool(usage["prompt_tokens_details"]) is cached


async def test_requests_without_a_rank_take_turns(start_worker: Any) -> None:
    async with start_worker(dp_size=3) as worker:
        body = {"text": "x", "sampling_params": {"max_new_tokens": 1}}
        ranks = [(await worker.post("/generate", body)).json()["meta_info"]["dp_rank"] for _ in range(6)]
        assert ranks == [0, 1, 2, 0, 1, 2]


async def test_namespaces_do_not_share_cache(start_worker: Any) -> None:
    async with start_worker(lora=True) as worker:
        await worker.chat(LONG, max_tokens=1)
        for fields in ({"cache_salt": "s"}, {"extra_key": "k"}, {"lora_path": "a"}, {"model": "m:b"}):
            first, again = [
                (await worker.chat(LONG, max_tokens=1, **fields)).json()["usage"]["prompt_tokens_details"]
                for _ in range(2)
            ]
            assert first is None
            assert again is not None


async def test_a_completion_answers_each_of_several_prompts_in_order(worker: Any) -> None:
    body = {"model": "m", "prompt": ["one two three", "four"], "max_tokens": 2, "n": 2, "echo": True}
    answer = (await worker.post("/v1/completions", body)).json()
    assert answer["object"] == "text_completion"
    texts = [choice["text"] for choice in answer["choices"]]
    assert [text.startswith(("one two three", "four")) for text in texts] == [True] * 4
    assert texts[0].startswith("one")
    assert texts[2].startswith("four")
    assert answer["usage"]["completion_tokens"] == 8


async def test_a_completion_takes_token_ids(worker: Any) -> None:
    ids = (await worker.post("/tokenize", {"prompt": "hello you"})).json()["tokens"]
    one = (await worker.post("/v1/completions", {"prompt": ids, "max_tokens": 2, "echo": True})).json()
    assert one["usage"]["prompt_tokens"] == len(ids)
    assert one["choices"][0]["text"].startswith("hello you")
    two = (await worker.post("/v1/completions", {"prompt": [ids, ids[:1]], "max_tokens": 1})).json()
    assert len(two["choices"]) == 2


async def test_a_completion_stream_puts_the_finish_in_its_last_text_event(worker: Any) -> None:
    body = {"prompt": "x", "max_tokens": 2, "stream": True, "stream_options": {"include_usage": True}}
    events = await worker.events("/v1/completions", body)
    first, last, usage, done = events
    assert (first["choices"][0]["finish_reason"], last["choices"][0]["finish_reason"]) == (None, "length")
    assert first["usage"] is None
    assert "prompt_tokens_details" not in usage["usage"]  # this event alone leaves nulls out
    assert done == "[DONE]"


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"prompt": ""}, "BadRequestError"),
        ({"prompt": []}, "BadRequestError"),
        ({"prompt": None}, "Bad Request"),
        ({"prompt": ["a", 1]}, "Bad Request"),
        ({"max_tokens": 0}, "Bad Request"),
    ],
    ids=str,
)
async def test_a_bad_completion_request_gets_400(worker: Any, fields: dict[str, Any], kind: str) -> None:
    response = await worker.post("/v1/completions", {"prompt": "x", **fields})
    assert (response.status_code, response.json()["type"]) == (400, kind)


async def test_a_prompt_past_the_context_or_the_cache_is_refused(start_worker: Any) -> None:
    async with start_worker(context_length=200, kv_capacity_tokens=100) as worker:
        for words, new in ((500, 1), (10, 500), (350 // 4 + 30, 1)):
            response = await worker.post("/v1/completions", {"prompt": "abc " * words, "max_tokens": new})
            assert response.status_code == 400, (words, new)
            assert "tokens" in response.json()["message"]
        assert (await worker.post("/v1/completions", {"prompt": "abc " * 50, "max_tokens": 1})).status_code == 200
