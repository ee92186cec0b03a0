"""The chat template keeps a conversation's next turn an extension of the last, and tells apart what differs."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from workers.simulated.chat_template import MEDIA_TOKENS, render_chat
from workers.simulated.tokenizer import Tokenizer
from workers.simulated.writer import Sampling, Writer

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=60)


def user(text: object) -> dict[str, Any]:
    return {"role": "user", "content": text}


def prefix(tokenizer: Tokenizer, messages: list[dict[str, Any]], **given: Any) -> list[int]:
    return render_chat(tokenizer, messages, **given)


@given(TEXT, TEXT, st.integers(1, 40), st.booleans())
def test_the_next_turn_extends_the_prompt_and_the_generated_tokens(
    first: str, second: str, tokens: int, with_tools: bool
) -> None:
    tokenizer = Tokenizer()
    writer = Writer(tokenizer, seed=1, natural_tokens=64, stop_early=False)
    tools = TOOLS if with_tools else None
    prompt = render_chat(tokenizer, [user(first)], tools)
    plan = writer.plan(prompt, Sampling(max_new_tokens=tokens), 0, 1000)
    answer = {"role": "assistant", "content": plan.text}
    following = render_chat(tokenizer, [user(first), answer, user(second)], tools)
    said = [*prompt, *plan.tokens]
    assert following[: len(said)] == said


def test_an_answer_that_ended_by_itself_is_extended_including_its_end_token() -> None:
    tokenizer = Tokenizer()
    writer = Writer(tokenizer, seed=1, natural_tokens=10, stop_early=False)
    prompt = render_chat(tokenizer, [user("hi")])
    plan = writer.plan(prompt, Sampling(), 0, 1000)
    assert plan.finish_reason["type"] == "stop"
    following = render_chat(tokenizer, [user("hi"), {"role": "assistant", "content": plan.text}, user("more")])
    assert following[: len(prompt) + len(plan.tokens)] == [*prompt, *plan.tokens]


def test_roles_are_part_of_the_prompt() -> None:
    tokenizer = Tokenizer()
    assert render_chat(tokenizer, [user("x")]) != render_chat(tokenizer, [{"role": "assistant", "content": "x"}])


def test_a_list_of_text_parts_is_the_same_prompt_as_their_concatenation() -> None:
    tokenizer = Tokenizer()
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    assert render_chat(tokenizer, [user(parts)]) == render_chat(tokenizer, [user("one two")])


def test_tools_stand_in_the_system_part_before_every_message() -> None:
    tokenizer = Tokenizer()
    with_tools = render_chat(tokenizer, [user("x")], TOOLS)
    assert '"name":"f"' in tokenizer.decode(with_tools).split("x")[0]
    system = {"role": "system", "content": "be brief"}
    both = render_chat(tokenizer, [system, user("x")], TOOLS)
    alone = render_chat(tokenizer, [system, user("x")])
    start = tokenizer.encode("<|im_start|>system\nbe brief")
    assert both[: len(start)] == start == alone[: len(start)]
    assert both != alone


def test_the_same_image_is_the_same_run_of_tokens_and_another_image_another() -> None:
    tokenizer = Tokenizer()

    def image(url: str) -> list[dict[str, Any]]:
        return [user([{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what is it?"}])]

    one, again, other = (render_chat(tokenizer, image(url)) for url in ("a.png", "a.png", "b.png"))
    assert one == again
    assert one != other
    assert len(one) == len(render_chat(tokenizer, [user("what is it?")])) + MEDIA_TOKENS["image_url"]


def test_a_final_assistant_message_can_be_left_open() -> None:
    tokenizer = Tokenizer()
    messages = [user("x"), {"role": "assistant", "content": "so far so"}]
    prompt = render_chat(tokenizer, messages, continue_final_message=True)
    assert tokenizer.decode(prompt, skip_special=False).endswith("<|im_start|>assistant\nso far so")


def test_tool_calls_and_reasoning_of_past_answers_are_rendered() -> None:
    tokenizer = Tokenizer()
    call = {"function": {"name": "look", "arguments": '{"at": 1}'}}
    messages = [user("x"), {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "hm"}]
    text = tokenizer.decode(render_chat(tokenizer, messages))
    assert "look" in text
    assert '{"at": 1}' in text
    assert "hm" in text
