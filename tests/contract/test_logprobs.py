"""Log-probabilities: where they are, in which shape, and that asking for a prompt's own makes the server compute it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

FreshIds = Callable[[int], list[int]]


def meta(server: Any, ids: list[int], tokens: int = 1, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = server.generate(ids, tokens, return_logprob=True, **fields)["meta_info"]
    return found


def logs_of(rows: list[Any]) -> list[float]:
    return [log for log, _, _ in rows]


def test_by_default_there_is_a_row_for_every_token_said_and_none_for_the_prompt(
    worker: Any, fresh_ids: FreshIds
) -> None:
    answer = worker.generate(fresh_ids(5), 3, return_logprob=True)
    rows = answer["meta_info"]["output_token_logprobs"]

    assert [token for _, token, _ in rows] == answer["output_ids"]
    assert all(log < 0 and text is None for log, _, text in rows)
    assert answer["meta_info"]["output_token_logprobs_length"] == 3
    assert answer["meta_info"]["input_token_logprobs"] == []


def test_without_asking_there_are_none(worker: Any, fresh_ids: FreshIds) -> None:
    answer = worker.generate(fresh_ids(5), 1, logprob_start_len=0, top_logprobs_num=2)

    assert not [name for name in answer["meta_info"] if "logprob" in name]


def test_a_prompt_has_rows_from_the_start_asked_for_and_the_first_has_no_number(
    worker: Any, fresh_ids: FreshIds
) -> None:
    ids = fresh_ids(20)
    rows = meta(worker, ids, logprob_start_len=17)["input_token_logprobs"]

    assert [token for _, token, _ in rows] == ids[17:]
    assert rows[0][0] is None
    assert all(log < 0 for log in logs_of(rows[1:]))


def test_equal_prompts_have_equal_numbers(worker: Any, fresh_ids: FreshIds) -> None:
    ids = fresh_ids(20)
    found = [logs_of(meta(worker, ids, logprob_start_len=10)["input_token_logprobs"][1:]) for _ in range(2)]

    assert found[1] == pytest.approx(found[0], abs=0.01)  # another batch is another sum of floats


def test_cached_tokens_end_where_the_rows_of_the_prompt_begin(worker: Any, fresh_ids: FreshIds) -> None:
    ids = fresh_ids(64)
    worker.generate(ids)

    assert meta(worker, ids)["cached_tokens"] == 48
    assert meta(worker, ids, logprob_start_len=40)["cached_tokens"] == 32
    assert meta(worker, ids, logprob_start_len=0)["cached_tokens"] == 0


def test_rows_carry_text_where_it_is_asked_for(worker: Any, fresh_text: Callable[[int], str]) -> None:
    text = fresh_text(4)
    answer = worker.generate(text, 2, return_logprob=True, logprob_start_len=0, return_text_in_logprobs=True)
    rows = answer["meta_info"]["input_token_logprobs"]

    assert "".join(piece for _, _, piece in rows) == text
    assert "".join(piece for _, _, piece in answer["meta_info"]["output_token_logprobs"]) == answer["text"]


def test_the_most_likely_tokens_come_in_order_and_what_was_said_is_the_first(worker: Any, fresh_ids: FreshIds) -> None:
    found = meta(worker, fresh_ids(20), 2, logprob_start_len=17, top_logprobs_num=3)

    assert [len(top) for top in found["output_top_logprobs"]] == [3, 3]
    assert [top[0] for top in found["output_top_logprobs"]] == found["output_token_logprobs"]
    assert found["input_top_logprobs"][0] is None
    for top in [*found["input_top_logprobs"][1:], *found["output_top_logprobs"]]:
        assert logs_of(top) == sorted(logs_of(top), reverse=True)


def test_given_tokens_have_a_number_at_every_place(worker: Any, fresh_ids: FreshIds) -> None:
    found = meta(worker, fresh_ids(20), 2, logprob_start_len=18, token_ids_logprob=[105, 106])

    assert found["input_token_ids_logprobs"][0] is None
    for rows in [*found["input_token_ids_logprobs"][1:], *found["output_token_ids_logprobs"]]:
        assert [token for _, token, _ in rows] == [105, 106]
        assert all(log < 0 for log in logs_of(rows))


def test_prompts_of_a_batch_ask_each_for_themselves(worker: Any, fresh_ids: FreshIds) -> None:
    prompts = [fresh_ids(20), fresh_ids(20)]
    body = {"input_ids": prompts, "sampling_params": {"max_new_tokens": 1}}
    each = worker.ok("/generate", {**body, "return_logprob": [True, False], "logprob_start_len": [18, -1]})
    both = worker.ok("/generate", {**body, "return_logprob": True, "logprob_start_len": 19})

    assert len(each[0]["meta_info"]["input_token_logprobs"]) == 2
    assert "input_token_logprobs" not in each[1]["meta_info"]
    assert [len(one["meta_info"]["input_token_logprobs"]) for one in both] == [1, 1]


def test_a_start_behind_the_prompt_is_refused(worker: Any, fresh_ids: FreshIds) -> None:
    body = {"input_ids": fresh_ids(20), "return_logprob": True, "logprob_start_len": 21}
    answer = worker.post("/generate", body)

    assert answer.status_code == 400
    assert "logprob_start_len=21 is higher than the number of input tokens" in answer.json()["error"]["message"]


def test_every_event_of_a_stream_has_the_rows_so_far(worker: Any, fresh_ids: FreshIds) -> None:
    params = {"max_new_tokens": 4, "ignore_eos": True}
    body = {"input_ids": fresh_ids(20), "sampling_params": params, "return_logprob": True, "logprob_start_len": 18}
    for event in worker.events("/generate", body):
        found = event["meta_info"]
        assert len(found["input_token_logprobs"]) == 2
        assert [token for _, token, _ in found["output_token_logprobs"]] == event["output_ids"]
        assert found["output_token_logprobs_length"] == found["completion_tokens"]


def test_a_choice_is_made_as_the_frontend_language_makes_it(worker: Any, fresh_text: Callable[[int], str]) -> None:
    """The calls of sgl.select: the common prefix ahead, then each choice after it without a token of output."""
    prefix = fresh_text(12)
    ahead = worker.generate(prefix, 0)
    body = {
        "text": [f"{prefix} blue", f"{prefix} green"],
        "sampling_params": {"max_new_tokens": 0, "temperature": 0},
        "return_logprob": True,
        "return_text_in_logprobs": True,
        "logprob_start_len": max(ahead["meta_info"]["prompt_tokens"] - 2, 0),
    }
    first, second = (worker.ok("/generate", body) for _ in range(2))

    assert (ahead["text"], ahead["output_ids"]) == ("", [])
    for choice in first:
        assert choice["meta_info"]["output_token_logprobs"] == []
        assert choice["meta_info"]["completion_tokens"] == 0
    means = [[sum(logs) / len(logs) for logs in map(_numbers, answer)] for answer in (first, second)]
    assert means[1] == pytest.approx(means[0], abs=0.01)


def _numbers(answer: dict[str, Any]) -> list[float]:
    return logs_of(answer["meta_info"]["input_token_logprobs"][1:])


@pytest.mark.parametrize(("asked", "count"), [(0, 0), (1, 1), (3, 3)])
def test_a_completion_names_the_tokens_and_as_many_alternatives_as_asked(
    worker: Any, fresh_text: Callable[[int], str], asked: int, count: int
) -> None:
    body = {"model": "contract", "prompt": fresh_text(3), "max_tokens": 2, "logprobs": asked, "temperature": 0}
    (choice,) = worker.ok("/v1/completions", {**body, "ignore_eos": True})["choices"]
    found = choice["logprobs"]

    assert list(found) == ["text_offset", "token_logprobs", "tokens", "top_logprobs"]
    assert "".join(found["tokens"]) == choice["text"]
    assert found["text_offset"] == [-1, -1]
    assert len(found["token_logprobs"]) == 2
    assert len(found["top_logprobs"]) == (2 if count else 0)
    for top, token, log in zip(found["top_logprobs"], found["tokens"], found["token_logprobs"], strict=False):
        assert (len(top), top[token]) == (count, log)


def test_an_echoed_prompt_has_its_numbers_too(worker: Any, fresh_text: Callable[[int], str]) -> None:
    body = {"model": "contract", "prompt": fresh_text(3), "max_tokens": 2, "logprobs": 1, "echo": True}
    (choice,) = worker.ok("/v1/completions", {**body, "ignore_eos": True, "temperature": 0})["choices"]

    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]
    assert choice["logprobs"]["token_logprobs"][0] is choice["logprobs"]["top_logprobs"][0] is None


def test_a_chat_names_the_tokens_their_bytes_and_alternatives(worker: Any, fresh_text: Callable[[int], str]) -> None:
    (choice,) = worker.chat(fresh_text(3), max_tokens=3, logprobs=True, top_logprobs=2)["choices"]
    content = choice["logprobs"]["content"]

    assert list(choice["logprobs"]) == ["content"]
    assert [list(token) for token in content] == [["token", "bytes", "logprob", "top_logprobs"]] * 3
    assert "".join(token["token"] for token in content) == choice["message"]["content"]
    for token in content:
        assert bytes(token["bytes"]).decode() == token["token"]
        assert token["top_logprobs"][0] == {key: token[key] for key in ("token", "bytes", "logprob")}
        assert len(token["top_logprobs"]) == 2


def test_alternatives_alone_ask_for_nothing(worker: Any, fresh_text: Callable[[int], str]) -> None:
    assert worker.chat(fresh_text(3), max_tokens=1, top_logprobs=2)["choices"][0]["logprobs"] is None


@pytest.mark.parametrize("chat", [True, False])
def test_an_event_of_an_openai_stream_names_its_own_tokens(
    worker: Any, fresh_text: Callable[[int], str], chat: bool
) -> None:
    text = fresh_text(3)
    body = {"model": "contract", "max_tokens": 4, "ignore_eos": True, "temperature": 0}
    if chat:
        events = worker.events(
            "/v1/chat/completions", {**body, "messages": [{"role": "user", "content": text}], "logprobs": True}
        )
        named = [token["token"] for event in events if (found := event["choices"][0]["logprobs"])
                 for token in found["content"]]  # fmt: skip
        said = [event["choices"][0]["delta"].get("content") or "" for event in events]
    else:
        events = worker.events("/v1/completions", {**body, "prompt": text, "logprobs": 1})
        named = [token for event in events for token in event["choices"][0]["logprobs"]["tokens"]]
        said = [event["choices"][0]["text"] for event in events]

    assert len(named) == 4
    assert "".join(named) == "".join(said)
