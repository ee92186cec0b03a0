"""Cached tokens, to the token: the same number on both servers, derived here from what was sent and generated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from workers.sglang.cpu.flavours import KV_CAPACITY_TOKENS

FreshIds = Callable[[int], list[int]]


def pages(tokens: int, page_size: int) -> int:
    """Tokens in the whole pages of `tokens`."""
    return tokens // page_size * page_size


def cached(answer: Any) -> int:
    tokens: int = answer["meta_info"]["cached_tokens"]
    return tokens


def cached_in_usage(answer: Any) -> int:
    details = answer["usage"]["prompt_tokens_details"]
    return details["cached_tokens"] if details else 0


@pytest.mark.parametrize("length", [1, 15, 16, 17, 32, 33, 100])
def test_a_prompt_sent_again_is_cached_in_whole_pages_but_for_its_last_token(
    worker: Any, fresh_ids: FreshIds, length: int
) -> None:
    ids = fresh_ids(length)

    assert cached(worker.generate(ids)) == 0
    assert cached(worker.generate(ids)) == pages(length - 1, worker.page_size)


@pytest.mark.parametrize("length", [1, 2, 33])
def test_with_pages_of_one_token_all_but_the_last_is_cached(guarded: Any, fresh_ids: FreshIds, length: int) -> None:
    ids = fresh_ids(length)
    guarded.generate(ids, routed_dp_rank=0)

    assert cached(guarded.generate(ids, routed_dp_rank=0)) == length - 1


@pytest.mark.parametrize(("prompt", "generated"), [(20, 1), (20, 12), (20, 13), (31, 2), (32, 17)])
def test_generated_tokens_are_cached_too_except_the_last_one_generated(
    worker: Any, fresh_ids: FreshIds, prompt: int, generated: int
) -> None:
    ids = fresh_ids(prompt)
    said = worker.generate(ids, generated)["output_ids"]
    turn = ids + said + fresh_ids(40)

    assert cached(worker.generate(turn)) == pages(prompt + generated - 1, worker.page_size)


def test_a_conversation_by_token_ids_reports_every_turn_exactly(worker: Any, fresh_ids: FreshIds) -> None:
    context: list[int] = []
    stored = 0
    for length, generated in ((30, 5), (3, 20), (50, 1), (16, 16)):
        context += fresh_ids(length)
        answer = worker.generate(context, generated)
        assert cached(answer) == pages(stored, worker.page_size)
        context += answer["output_ids"]
        stored = len(context) - 1


def test_a_chat_over_several_turns_reports_at_least_the_prompts_before_it(
    worker: Any, fresh_text: Callable[[int], str]
) -> None:
    """Answers may be tokenised anew when they come back as text, prompts may not."""
    messages = [{"role": "user", "content": fresh_text(30)}]
    before: list[int] = []
    for _ in range(3):
        prompt = worker.tokenize(messages)
        answer = worker.chat(messages, max_tokens=8)
        if before:
            floor = pages(len(before), worker.page_size)
            assert prompt[: len(before)] == before
            assert floor <= cached_in_usage(answer) <= pages(len(before) + 8 - 1, worker.page_size)
        else:
            assert answer["usage"]["prompt_tokens_details"] is None
        before = prompt
        messages += [
            {"role": "assistant", "content": answer["choices"][0]["message"]["content"]},
            {"role": "user", "content": fresh_text(10)},
        ]


def test_the_same_number_is_reported_by_every_route(worker: Any, fresh_text: Callable[[int], str]) -> None:
    messages = [{"role": "user", "content": fresh_text(40)}]
    ids = worker.tokenize(messages)
    expected = pages(len(ids) - 1, worker.page_size)
    worker.chat(messages, max_tokens=1)
    chat = worker.chat(messages, max_tokens=1, return_cached_tokens_details=True)
    completion = worker.ok("/v1/completions", {"model": "contract", "prompt": ids, "max_tokens": 1})

    assert cached_in_usage(chat) == expected
    assert chat["sglext"]["cached_tokens_details"] == {"device": expected, "host": 0}
    assert cached_in_usage(completion) == expected
    assert cached(worker.generate(ids)) == expected


def test_branches_of_a_conversation_share_its_trunk(worker: Any, fresh_ids: FreshIds) -> None:
    trunk = fresh_ids(64)
    worker.generate(trunk + fresh_ids(10))

    assert cached(worker.generate(trunk + fresh_ids(20))) == 64
    assert cached(worker.generate(trunk[:40] + fresh_ids(20))) == pages(40, worker.page_size)


@pytest.mark.parametrize("key", ["cache_salt", "extra_key"])
def test_prompts_of_different_namespaces_share_nothing(worker: Any, fresh_ids: FreshIds, key: str) -> None:
    ids = fresh_ids(50)
    worker.generate(ids)

    assert cached(worker.generate(ids, **{key: "a"})) == 0
    assert cached(worker.generate(ids, **{key: "b"})) == 0
    assert cached(worker.generate(ids, **{key: "a"})) == 48


def test_a_prompt_prefilled_with_no_output_is_cached(worker: Any, fresh_ids: FreshIds) -> None:
    ids = fresh_ids(50)
    worker.generate(ids, 0)

    assert cached(worker.generate([*ids, 7])) == 48


def test_a_flush_forgets_everything(worker: Any, fresh_ids: FreshIds) -> None:
    ids = fresh_ids(50)
    worker.generate(ids)
    worker.flush()

    assert cached(worker.generate(ids)) == 0


def test_the_least_recently_used_prompt_is_evicted_first(worker: Any, fresh_ids: FreshIds) -> None:
    worker.flush()
    old, used = fresh_ids(1000), fresh_ids(1000)
    worker.generate(old)
    worker.generate(used)
    worker.generate(fresh_ids(KV_CAPACITY_TOKENS - 2100))
    worker.generate(used)
    worker.generate(fresh_ids(900))

    assert cached(worker.generate(used)) == pages(999, worker.page_size)
    assert cached(worker.generate(old)) < 500


def test_a_rank_knows_nothing_of_the_others_cache(guarded: Any, fresh_ids: FreshIds) -> None:
    ids = fresh_ids(40)
    guarded.generate(ids, routed_dp_rank=0)

    assert cached(guarded.generate(ids, routed_dp_rank=1)) < 5  # another test's prompt may start with the same id
    assert cached(guarded.generate(ids, routed_dp_rank=0)) == 39


def test_without_the_cache_report_usage_never_names_cached_tokens(
    guarded: Any, fresh_text: Callable[[int], str]
) -> None:
    messages = [{"role": "user", "content": fresh_text(30)}]
    for _ in range(2):
        answer = guarded.chat(messages, max_tokens=1, routed_dp_rank=0)
        assert answer["usage"]["prompt_tokens_details"] is None
