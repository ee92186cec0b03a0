"""Chats are rendered as SGLang renders them, and what only the server can render is refused."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

pytest.importorskip("jinja2", reason="needs the extra 'exact'")

from router.request.chat_template import CannotRender, ChatTemplate

CHATML = (
    "{%- if tools %}\n    {{- 'tools' }}\n    {%- for tool in tools %}{{ tool | tojson }}{% endfor %}\n{%- endif %}\n"
    "{%- for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "{%- for call in m.tool_calls or [] %}{{ call.function.arguments.city }}{% endfor %}{{ eos_token }}{% endfor %}\n"
    "{%- if add_generation_prompt %}<|assistant|>{% endif %}{% if thinking %}<think>{% endif %}"
)


def rendered(messages: list[Any], **more: Any) -> str:
    return ChatTemplate(CHATML, {"eos_token": "</s>"}).render({"messages": messages, **more})


def user(content: Any) -> dict[str, Any]:
    return {"role": "User", "content": content}


@pytest.mark.parametrize(
    "content", ["hi there", [{"type": "text", "text": "hi there"}], [{"type": "text", "text": "hi"}, "there"]]
)
def test_text_is_text_in_every_shape(content: Any) -> None:
    assert rendered([user(content)]) == "<|user|>hi there</s><|assistant|>"


def test_no_content_is_empty_and_arguments_are_objects() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"city": "Bern"}'}}
    asked = {"role": "assistant", "content": None, "tool_calls": [call]}

    assert rendered([asked, {"role": "tool", "content": "12", "tool_call_id": "1"}]) == (
        "<|assistant|>Bern</s><|tool|>12</s><|assistant|>"
    )


def test_a_last_answer_becomes_the_users() -> None:
    assert rendered([user("a"), {"role": "assistant", "content": "b"}]).endswith("<|user|>b</s><|assistant|>")


def test_tools_are_printed_with_their_fields_in_sglangs_order_and_not_when_there_is_no_choice() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"z": 1, "a": "<é>"}}}
    printed = '{"type": "function", "function": {"description": null, "name": "f", "parameters": {"z": 1, "a": "<é>"}'

    assert printed in rendered([user("a")], tools=[tool])
    assert "tools" not in rendered([user("a")], tools=[tool], tool_choice="none")


def test_the_clients_template_arguments_are_passed_on() -> None:
    assert rendered([user("a")], chat_template_kwargs={"thinking": True}).endswith("<think>")


@pytest.mark.parametrize(
    ("messages", "more"),
    [
        ([user([{"type": "image_url", "image_url": {"url": "x"}}])], {}),
        ([user("a")], {"continue_final_message": True}),
        ([user("a")], {"tools": [{"type": "web_search"}]}),
        ([{"role": "assistant", "tool_calls": [{"function": {"arguments": "{nope"}}]}], {}),
    ],
)
def test_what_only_the_server_can_render_is_refused(messages: list[Any], more: dict[str, Any]) -> None:
    with pytest.raises(CannotRender):
        rendered(messages, **more)


@pytest.mark.parametrize(
    "source", ["{{ raise_exception('no') }}", "{{ messages[7].content.x }}", "{{ ''.__class__.mro() }}"]
)
def test_a_template_that_fails_or_reaches_out_is_refused(source: str) -> None:
    with pytest.raises(CannotRender):
        ChatTemplate(source, {}).render({"messages": [user("a")]})


def test_a_template_that_is_none_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="cannot be compiled"):
        ChatTemplate("{% for %}", {})


def test_the_reasoning_effort_is_the_templates_unless_its_own_arguments_say_another() -> None:
    template = ChatTemplate("{{ reasoning_effort }}", {})
    body: dict[str, Any] = {"messages": [user("a")], "reasoning_effort": "low"}

    assert template.render(body) == "low"
    assert template.render({**body, "chat_template_kwargs": {"reasoning_effort": "high"}}) == "high"


@pytest.mark.parametrize("call", ["text", {"id": "1"}, {"function": {"name": "f", "arguments": {"city": "Bern"}}}])
def test_a_tool_call_of_another_shape_is_the_templates_to_understand(call: Any) -> None:
    asked = {"role": "assistant", "content": "", "tool_calls": [call]}
    template = ChatTemplate("{{ messages[0].tool_calls[0] | tojson }}", {})

    assert json.loads(template.render({"messages": [asked, user("a")]})) == call


def test_a_template_may_ask_for_the_date() -> None:
    template = ChatTemplate("{{ strftime_now('%Y-%m') }}", {})

    assert re.fullmatch(r"\d{4}-\d\d", template.render({"messages": [user("a")]}))
