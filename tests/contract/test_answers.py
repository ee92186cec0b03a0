"""Whole answers of the generating routes: fields, usage, finish reasons, several choices, stops."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

USAGE_FIELDS = ["prompt_tokens", "total_tokens", "completion_tokens", "prompt_tokens_details", "reasoning_tokens"]
META_FIELDS = {
    "id",
    "finish_reason",
    "prompt_tokens",
    "weight_version",
    "num_retractions",
    "queue_time",
    "reasoning_tokens",
    "completion_tokens",
    "cached_tokens",
    "weight_versions",
    "cached_tokens_details",
    "dp_rank",
    "e2e_latency",
    "request_received_ts",
    "first_token_latency",
    "request_finished_ts",
    "decode_throughput",
    "response_sent_to_client_ts",
    "forward_entry_time",
    "prefill_finished_time",
    "api_server_dispatch_finish_ts",
}


def test_a_chat_answer_has_exactly_these_fields_in_this_order(worker: Any, fresh_text: Callable[[int], str]) -> None:
    answer = worker.chat(fresh_text(5), max_tokens=3)

    assert list(answer) == ["id", "object", "created", "model", "choices", "usage", "metadata"]
    assert (answer["object"], answer["model"]) == ("chat.completion", "contract")
    (choice,) = answer["choices"]
    assert list(choice) == ["index", "message", "logprobs", "finish_reason", "matched_stop"]
    assert list(choice["message"]) == ["role", "content", "reasoning_content", "tool_calls"]
    assert (choice["finish_reason"], choice["matched_stop"], choice["logprobs"]) == ("length", None, None)
    assert answer["metadata"] == {
        "weight_version": "default",
        "weight_versions": [{"version": "default", "start": 0, "end": 3}],
    }


def test_usage_adds_up_and_names_no_cached_tokens_for_a_new_prompt(
    worker: Any, fresh_text: Callable[[int], str]
) -> None:
    messages = [{"role": "user", "content": fresh_text(5)}]
    usage = worker.chat(messages, max_tokens=3)["usage"]

    assert list(usage) == USAGE_FIELDS
    assert usage["prompt_tokens"] == len(worker.tokenize(messages))
    assert usage["completion_tokens"] == 3
    assert usage["total_tokens"] == usage["prompt_tokens"] + 3
    assert usage["prompt_tokens_details"] is None


def test_the_model_answered_is_the_one_that_was_asked_for_even_if_it_is_not_served(worker: Any) -> None:
    assert worker.chat("x", max_tokens=1, model="other")["model"] == "other"
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    assert worker.ok("/v1/chat/completions", body)["model"] == "default"


def test_a_request_id_given_is_the_id_answered(worker: Any) -> None:
    assert worker.chat("x", max_tokens=1, rid="contract-chat")["id"] == "contract-chat"
    assert worker.generate("x", rid="contract-generate")["meta_info"]["id"] == "contract-generate"


def test_max_completion_tokens_wins_over_max_tokens(worker: Any) -> None:
    assert worker.chat("x", max_tokens=5, max_completion_tokens=2)["usage"]["completion_tokens"] == 2


def test_no_tokens_at_all_may_be_asked_for(worker: Any) -> None:
    answer = worker.chat("x", max_tokens=0)
    assert answer["usage"]["completion_tokens"] == 0
    assert answer["choices"][0]["message"]["content"] == ""
    generated = worker.generate("x", 0)
    assert (generated["text"], generated["output_ids"]) == ("", [])
    assert generated["meta_info"]["finish_reason"] == {"type": "length", "length": 0}


def test_several_choices_share_one_prompt_in_usage(worker: Any, fresh_text: Callable[[int], str]) -> None:
    messages = [{"role": "user", "content": fresh_text(4)}]
    answer = worker.chat(messages, max_tokens=3, n=3, temperature=1)

    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["completion_tokens"] == 9
    assert answer["usage"]["prompt_tokens"] == len(worker.tokenize(messages))


def test_a_completion_has_exactly_these_fields_in_this_order(worker: Any) -> None:
    answer = worker.ok(
        "/v1/completions", {"model": "contract", "prompt": "Once upon", "max_tokens": 3, "ignore_eos": True}
    )

    assert list(answer) == ["id", "object", "created", "model", "choices", "usage", "metadata"]
    assert answer["object"] == "text_completion"
    (choice,) = answer["choices"]
    assert list(choice) == ["index", "text", "logprobs", "finish_reason", "matched_stop"]
    assert choice["finish_reason"] == "length"
    assert list(answer["usage"]) == USAGE_FIELDS


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [([5, 6, 7], 1), ([[5, 6, 7], [8]], 2), (["one", "two"], 2)],
    ids=["ids", "id lists", "texts"],
)
def test_a_completion_takes_token_ids_and_several_prompts(worker: Any, prompt: Any, prompts: int) -> None:
    body = {"model": "contract", "prompt": prompt, "max_tokens": 2, "ignore_eos": True, "n": 2}
    answer = worker.ok("/v1/completions", body)

    assert [choice["index"] for choice in answer["choices"]] == list(range(2 * prompts))
    assert answer["usage"]["completion_tokens"] == 4 * prompts
    if not isinstance(prompt[0], str):
        assert answer["usage"]["prompt_tokens"] == (3 if prompts == 1 else 4)


def test_echo_puts_the_prompt_before_the_answer(worker: Any) -> None:
    body = {"model": "contract", "prompt": "Once upon", "max_tokens": 2, "ignore_eos": True, "echo": True}
    assert worker.ok("/v1/completions", body)["choices"][0]["text"].startswith("Once upon")


def test_generate_answers_text_ids_and_all_of_meta_info(worker: Any, fresh_ids: Callable[[int], list[int]]) -> None:
    ids = fresh_ids(7)
    answer = worker.generate(ids, 3)
    meta = answer["meta_info"]

    assert list(answer) == ["text", "output_ids", "meta_info"]
    assert len(answer["output_ids"]) == 3
    assert meta["finish_reason"] == {"type": "length", "length": 3}
    assert (meta["prompt_tokens"], meta["completion_tokens"], meta["cached_tokens"]) == (7, 3, 0)
    assert (meta["dp_rank"], meta["cached_tokens_details"], meta["num_retractions"]) == (None, None, 0)
    assert set(meta) == META_FIELDS


def test_generate_answers_a_batch_with_a_list(worker: Any) -> None:
    body = {"text": ["a", "b"], "sampling_params": {"max_new_tokens": 2, "ignore_eos": True, "n": 2}}
    answers = worker.ok("/generate", body)
    assert [answer["meta_info"]["completion_tokens"] for answer in answers] == [2, 2, 2, 2]


def test_generate_by_put_is_the_same(worker: Any) -> None:
    body = {"text": "a", "sampling_params": {"max_new_tokens": 1}}
    assert worker.client.put("/generate", json=body).json()["meta_info"]["completion_tokens"] == 1


def test_what_the_benchmark_always_sends_is_accepted(worker: Any) -> None:
    fields = {"lora_path": None, "return_logprob": False, "return_routed_experts": False, "logprob_start_len": -1}
    assert worker.generate("a", 2, **fields)["meta_info"]["completion_tokens"] == 2


def test_an_answer_that_ends_by_itself_says_stop_and_names_the_end_token(worker: Any) -> None:
    choice = worker.chat("x", max_tokens=50, regex="(yes|no)", ignore_eos=False)["choices"][0]

    assert choice["message"]["content"] in {"yes", "no"}
    assert choice["finish_reason"] == "stop"
    assert isinstance(choice["matched_stop"], int)


@pytest.mark.parametrize("keep", [False, True])
def test_a_stop_string_ends_the_answer_and_is_named(worker: Any, keep: bool) -> None:
    fields = {"regex": "one;two", "stop": [";"], "no_stop_trim": keep}
    choice = worker.chat("x", max_tokens=50, **fields)["choices"][0]

    assert choice["message"]["content"].rstrip("two") == ("one;" if keep else "one")
    assert (choice["finish_reason"], choice["matched_stop"]) == ("stop", ";")


@pytest.mark.parametrize("ignore_eos", [False, True])
def test_a_stop_token_ends_the_answer_unless_end_tokens_are_ignored(
    worker: Any, fresh_ids: Callable[[int], list[int]], ignore_eos: bool
) -> None:
    ids = fresh_ids(20)
    said = worker.generate(ids, 6)["output_ids"]
    stop = said[3]
    answer = worker.generate(ids, 6, sampling_params={"stop_token_ids": [stop], "ignore_eos": ignore_eos})

    assert answer["output_ids"] == (said if ignore_eos else said[: said.index(stop) + 1])
    if not ignore_eos:
        assert answer["meta_info"]["finish_reason"] == {"type": "stop", "matched": stop}


def test_a_json_schema_is_obeyed(worker: Any) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    compact = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    said = worker.chat("x", max_tokens=40, ignore_eos=False, response_format=compact)["choices"][0]

    assert said["finish_reason"] == "stop"
    assert json.loads(said["message"]["content"])["ok"] in {True, False}


def test_generate_obeys_a_regex(worker: Any) -> None:
    answer = worker.generate("x", 20, sampling_params={"regex": "[0-9]{3}", "ignore_eos": False})
    assert len(answer["text"]) == 3
    assert answer["text"].isdigit()
