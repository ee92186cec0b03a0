"""SGLang's native routes: /generate with its cumulative stream, abort, flush, tokenize."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from typing import Any

import pytest

LONG = "one two three four five six seven eight nine ten " * 10


def generate(text: str = "hello", *, tokens: int = 3, **fields: Any) -> dict[str, Any]:
    return {"text": text, "sampling_params": {"max_new_tokens": tokens, "ignore_eos": True}, **fields}


async def test_an_answer_has_text_ids_and_meta_info(worker: Any) -> None:
    answer = (await worker.post("/generate", generate())).json()
    assert list(answer) == ["text", "output_ids", "meta_info"]
    assert len(answer["output_ids"]) == 3
    meta = answer["meta_info"]
    assert meta["finish_reason"] == {"type": "length", "length": 3}
    assert (meta["prompt_tokens"], meta["completion_tokens"], meta["cached_tokens"]) == (2, 3, 0)
    assert meta["weight_version"] == "default"
    assert meta["cached_tokens_details"] is None
    assert meta["dp_rank"] is None
    assert meta["e2e_latency"] >= meta["first_token_latency"] > 0
    text = (await worker.post("/detokenize", {"tokens": answer["output_ids"]})).json()["text"]
    assert text == answer["text"]


async def test_each_event_of_a_stream_holds_all_the_text_so_far(worker: Any) -> None:
    events = await worker.events("/generate", generate(stream=True))
    assert events.pop() == "[DONE]"
    assert [len(event["output_ids"]) for event in events] == [1, 2, 3]
    assert all(after["text"].startswith(before["text"]) for before, after in itertools.pairwise(events))
    assert [event["meta_info"]["finish_reason"] is None for event in events] == [True, True, False]
    assert "e2e_latency" in events[-1]["meta_info"]
    assert all("index" not in event for event in events)


async def test_a_batch_is_answered_in_order_and_its_stream_names_the_index(worker: Any) -> None:
    batch = {"text": ["hello", LONG], "sampling_params": [{"max_new_tokens": 1}, {"max_new_tokens": 2}]}
    answers = (await worker.post("/generate", batch)).json()
    assert [answer["meta_info"]["completion_tokens"] for answer in answers] == [1, 2]
    events = (await worker.events("/generate", {**batch, "stream": True}))[:-1]
    assert sorted(event["index"] for event in events) == [0, 1, 1]


async def test_several_samples_of_one_prompt_come_as_a_list(worker: Any) -> None:
    answers = (await worker.post("/generate", {"text": "x", "sampling_params": {"n": 2, "max_new_tokens": 4}})).json()
    assert len(answers) == 2
    assert answers[0]["text"] != answers[1]["text"]


async def test_token_ids_are_a_prompt_and_a_list_of_lists_a_batch(worker: Any) -> None:
    one = (await worker.post("/generate", {"input_ids": [5, 6, 7], "sampling_params": {"max_new_tokens": 1}})).json()
    assert one["meta_info"]["prompt_tokens"] == 3
    two = (
        await worker.post("/generate", {"input_ids": [[5], [6, 7]], "sampling_params": {"max_new_tokens": 1}})
    ).json()
    assert [answer["meta_info"]["prompt_tokens"] for answer in two] == [1, 2]


async def test_without_a_limit_128_tokens_are_generated(worker: Any) -> None:
    answer = (await worker.post("/generate", {"text": "x", "sampling_params": {"ignore_eos": True}})).json()
    assert answer["meta_info"]["completion_tokens"] == 128


async def test_a_regular_expression_and_a_schema_are_obeyed(worker: Any) -> None:
    params = {"regex": r"(yes|no) [0-9]{3}", "max_new_tokens": 30}
    answer = (await worker.post("/generate", {"text": "x", "sampling_params": params})).json()
    assert re.fullmatch(params["regex"], answer["text"])
    assert answer["meta_info"]["finish_reason"]["type"] == "stop"
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    params = {"json_schema": json.dumps(schema), "max_new_tokens": 30}
    answer = (await worker.post("/generate", {"text": "x", "sampling_params": params})).json()
    assert isinstance(json.loads(answer["text"])["a"], int)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "Either text, input_ids or input_embeds should be provided."),
        ({"input_ids": []}, "input_ids cannot be empty."),
        ({"text": ""}, "texts cannot be empty and tokenizer must be initialized"),
        ({"text": "x", "routed_dp_rank": 3}, "routed_dp_rank=3 out of range [0, 1)"),
        ({"text": "x", "sampling_params": {"regex": "("}}, None),
        ({"text": "x", "sampling_params": {"json_schema": "{"}}, None),
        ({"text": "x", "sampling_params": {"json_schema": "{}", "regex": "a"}}, None),
        ({"text": ["a", "b"], "rid": ["x", "x"]}, "Duplicate request IDs detected within the request: ['x']"),
        ({"text": ["a", "b"], "rid": ["x"]}, None),
        ({"text": ["a", "b"], "sampling_params": [{}]}, None),
        ({"text": "x", "return_logprob": True, "logprob_start_len": -2}, None),
        ({"text": "x", "return_logprob": [True]}, "What is a list must be one for each prompt of a batch."),
        ({"text": ["a", "b"], "return_logprob": True, "top_logprobs_num": [1]}, None),
        ({"text": "x", "return_logprob": True, "token_ids_logprob": [[1], 2]}, None),
    ],
    ids=str,
)
async def test_a_bad_request_gets_the_native_error_body_and_inside_the_stream_if_one_was_asked_for(
    worker: Any, body: dict[str, Any], message: str | None
) -> None:
    response = await worker.post("/generate", body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert list(error) == ["message"]
    assert message is None or error["message"] == message
    events = await worker.events("/generate", {**body, "stream": True})
    assert events[0]["error"]["message"] == error["message"]
    assert events[0]["error"]["code"] == 400
    assert events[1] == "[DONE]"


@pytest.mark.parametrize("content", [b"", b"{", b'{"text": 5}', b"[]"])
async def test_a_body_that_is_no_request_gets_the_validation_error(worker: Any, content: bytes) -> None:
    response = await worker.client.post("/generate", content=content, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["type"]) == (400, "Bad Request")


async def test_an_abort_ends_the_request_with_what_it_has_said(start_worker: Any) -> None:
    async with start_worker(speed=1) as worker:
        task = asyncio.ensure_future(worker.post("/generate", generate(tokens=100_000, rid="long")))
        await worker.until(lambda: running(worker, 1))
        assert (await worker.post("/abort_request", {"rid": "other"})).status_code == 200
        assert await running(worker, 1)
        assert (await worker.post("/abort_request", {"rid": "long"})).status_code == 200
        answer = (await task).json()
        assert answer["meta_info"]["finish_reason"]["type"] == "abort"
        assert await running(worker, 0)
        assert (await worker.loads())["num_used_tokens"] == 0


async def test_an_aborted_chat_answers_200_with_finish_reason_abort(start_worker: Any) -> None:
    async with start_worker(speed=1) as worker:
        task = asyncio.ensure_future(worker.chat("x", max_tokens=100_000, rid="long"))
        await worker.until(lambda: running(worker, 1))
        await worker.post("/abort_request", {"abort_all": True})
        response = await task
        assert response.status_code == 200
        assert response.json()["choices"][0]["finish_reason"] == "abort"


async def running(worker: Any, count: int) -> bool:
    return bool((await worker.loads())["num_running_reqs"] == count)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_its_slot_and_its_cache(start_worker: Any, stream: bool) -> None:
    async with start_worker(speed=1) as worker:
        _, writer = await worker.connect()
        body = json.dumps(generate(LONG, tokens=100_000, stream=stream)).encode()
        head = b"POST /generate HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        writer.write(head + body)
        await worker.until(lambda: running(worker, 1))
        writer.close()
        await worker.until(lambda: running(worker, 0))
        assert (await worker.loads())["num_used_tokens"] == 0


async def test_the_id_of_a_running_request_cannot_be_used_again(start_worker: Any) -> None:
    async with start_worker(speed=1) as worker:
        task = asyncio.ensure_future(worker.post("/generate", generate(tokens=100_000, rid="a")))
        await worker.until(lambda: running(worker, 1))
        response = await worker.post("/generate", generate(rid="a"))
        assert response.json()["error"]["message"] == "Duplicate request ID detected: a"
        await worker.post("/abort_request", {"rid": "a"})
        await task


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_flush_empties_the_cache(worker: Any, method: str) -> None:
    for _ in range(2):
        await worker.post("/generate", generate(LONG))
    response = await worker.client.request(method, "/flush_cache")
    assert response.status_code == 200
    assert response.text.startswith("Cache flushed.")
    assert (await worker.post("/generate", generate(LONG))).json()["meta_info"]["cached_tokens"] == 0


async def test_a_flush_is_refused_while_a_request_runs(start_worker: Any) -> None:
    async with start_worker(speed=1) as worker:
        task = asyncio.ensure_future(worker.post("/generate", generate(tokens=100_000, rid="a")))
        await worker.until(lambda: running(worker, 1))
        response = await worker.get("/flush_cache")
        assert (response.status_code, response.text) == (400, "Flush cache failed.\n")
        await worker.post("/abort_request", {"rid": "a"})
        await task
        assert (await worker.get("/flush_cache?timeout=5")).status_code == 200
        assert (await worker.get("/flush_cache?timeout=x")).status_code == 400


async def test_tokenize_and_detokenize_are_inverse_also_for_lists(worker: Any) -> None:
    for path in ("/tokenize", "/v1/tokenize"):
        one = (await worker.post(path, {"prompt": "hello there"})).json()
        assert (one["count"], one["max_model_len"]) == (3, 131_072)
    two = (await worker.post("/tokenize", {"prompt": ["hello there", "x"]})).json()
    assert two["count"] == [3, 1]
    for path in ("/detokenize", "/v1/detokenize"):
        assert (await worker.post(path, {"tokens": two["tokens"]})).json() == {"text": ["hello there", "x"]}
    assert (await worker.post("/detokenize", {"tokens": []})).json() == {"text": ""}


async def test_messages_are_tokenized_as_a_chat_prompt(worker: Any) -> None:
    count = (await worker.post("/tokenize", {"messages": [{"role": "user", "content": "hello"}]})).json()["count"]
    assert count == (await worker.chat("hello", max_tokens=1)).json()["usage"]["prompt_tokens"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {}),
        ("/tokenize", {"prompt": "x", "messages": []}),
        ("/detokenize", {"tokens": "x"}),
        ("/detokenize", {"tokens": [1, [2]]}),
        ("/detokenize", {"tokens": [-1]}),
        ("/abort_request", {"rid": 5}),
    ],
    ids=str,
)
async def test_bad_requests_to_the_small_routes_get_400(worker: Any, path: str, body: dict[str, Any]) -> None:
    assert (await worker.post(path, body)).status_code == 400
