"""Prompt keys share exactly what the prompts share, and JSON spelling does not count."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import InvalidBody
from router.prefix.block_sizes import depth_within
from router.request.parse import parse
from router.request.prompt_key import CANONICAL, PromptKeyConfig, prompt_key
from router.types import PromptKey

CONFIG = PromptKeyConfig(block_bytes=16)
CHAT = "/v1/chat/completions"

texts = st.text(alphabet="ab\u00e9\n\"", max_size=40)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": texts}), min_size=1, max_size=4
)


def key(body: dict[str, Any], path: str = CHAT, **spelling: Any) -> PromptKey:
    return prompt_key(parse(path, json.dumps(body, **spelling).encode()), CONFIG)


def shared(a: PromptKey, b: PromptKey) -> int:
    count = 0
    for x, y in zip(a.blocks, b.blocks, strict=False):
        if x != y:
            break
        count += 1
    return count


def canonical(body: dict[str, Any]) -> bytes:
    return CANONICAL[CHAT](body)[1]


@given(messages, messages)
def test_two_chats_share_blocks_exactly_as_far_as_they_agree(a: list[Any], b: list[Any]) -> None:
    one, other = canonical({"messages": a}), canonical({"messages": b})
    agree = next((i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), min(len(one), len(other)))

    assert shared(key({"messages": a}), key({"messages": b})) == agree // CONFIG.block_bytes


@given(messages, messages)
def test_canonical_forms_are_equal_only_for_equal_chats(a: list[Any], b: list[Any]) -> None:
    assert (canonical({"messages": a}) == canonical({"messages": b})) == (a == b)


@given(messages)
def test_the_next_turn_extends_the_last(turns: list[Any]) -> None:
    longer = [*turns, {"role": "assistant", "content": "yes"}]

    assert canonical({"messages": longer}).startswith(canonical({"messages": turns}))


@given(messages)
def test_json_spelling_does_not_count(turns: list[Any]) -> None:
    body = {"messages": turns, "model": "m", "tools": [{"type": "function", "function": {"name": "f", "a": 1}}]}
    swapped = dict(reversed(body.items()))
    swapped["messages"] = [dict(reversed(turn.items())) for turn in turns]

    assert key(body) == key(swapped, indent=3, ensure_ascii=False)


def test_role_tools_and_namespace_count() -> None:
    base: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x" * 100}]}
    changed = [
        {**base, "messages": [{"role": "system", "content": "x" * 100}]},
        {**base, "tools": [{"type": "function", "function": {"name": "f"}}]},
        {**base, "model": "other"},
        {**base, "cache_salt": "s"},
        {**base, "extra_key": "e"},
        {**base, "lora_path": "l"},
    ]

    assert [shared(key(base), key(other)) for other in changed] == [0] * len(changed)


def test_one_text_part_equals_the_plain_string_and_other_parts_count() -> None:
    def chat(content: Any) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": content}]}

    text = "look at this " * 10
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    other = {"type": "image_url", "image_url": {"url": "data:image/png;base64,BBBB"}}

    assert key(chat(text)) == key(chat([{"type": "text", "text": text}]))
    assert key(chat([picture, {"type": "text", "text": text}])) != key(chat([other, {"type": "text", "text": text}]))
    assert len(key(chat([picture])).blocks) > len(key(chat("")).blocks)


def test_token_ids_and_text_are_keyed_by_what_they_hold() -> None:
    ids = list(range(100))

    assert shared(key({"input_ids": ids}, "/generate"), key({"input_ids": [*ids, 7]}, "/generate")) == depth_within(25)
    assert key({"prompt": "ab" * 50}, "/v1/completions") == key({"text": "ab" * 50}, "/generate")
    assert key({"input_ids": [-1, 2**40]}, "/generate").prompt_tokens > 0


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(
    st.text(), x), max_leaves=10))  # fmt: skip
def test_no_odd_content_breaks_it(odd: Any) -> None:
    for path, body in (
        (CHAT, {"messages": [{"role": "user", "content": odd, "tool_calls": odd}], "tools": odd}),
        ("/v1/messages", {"system": odd, "messages": [{"role": "user", "content": odd}]}),
        ("/v1/responses", {"input": [odd], "instructions": odd}),
        ("/v1/embeddings", {"input": [odd]}),
        ("/v1/rerank", {"query": "q", "documents": [odd]}),
        ("/generate", {"text": [odd], "image_data": odd}),
    ):
        assert key(body, path).prompt_tokens >= 0


def test_a_prompt_that_is_not_there_is_empty_text() -> None:
    assert CANONICAL["/generate"]({}) == (b"text", b"")


@pytest.mark.parametrize(
    ("path", "around"), [("/v1/completions", b'{"prompt": %s}'), ("/v1/embeddings", b'{"input": %s}')]
)
def test_what_is_nested_too_deeply_to_be_keyed_is_the_clients_mistake(path: str, around: bytes) -> None:
    """Every depth is keyed or refused, those too that the parser lets through by a hair."""
    refused = 0
    for depth in (*range(300, 1200, 30), 20_000):
        try:
            prompt_key(parse(path, around % (b"[" * depth + b"]" * depth)), CONFIG)
        except InvalidBody as error:
            refused += "nested too deeply" in str(error)
    assert refused > 0
