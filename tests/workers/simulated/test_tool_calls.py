"""Forced tool calls on the chat route, and the checks of tools."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "d", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "other"}},
]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
async def test_a_forced_tool_is_called_with_arguments_its_schema_accepts(worker: Any, choice: Any) -> None:
    answer = (await worker.chat("x", tools=TOOLS, tool_choice=choice, max_tokens=100)).json()["choices"][0]
    assert answer["finish_reason"] == "tool_calls"
    assert answer["message"]["content"] == ""
    (call,) = answer["message"]["tool_calls"]
    assert list(call) == ["id", "index", "type", "function"]
    assert call["function"]["name"] == "weather"
    jsonschema.validate(json.loads(call["function"]["arguments"]), PARAMETERS)


async def test_a_streamed_call_names_the_tool_first_and_adds_up_to_the_same_arguments(worker: Any) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": TOOLS, "tool_choice": "required"}
    events = await worker.events("/v1/chat/completions", {**body, "stream": True})
    assert events[-1] == "[DONE]"
    choices = [event["choices"][0] for event in events[:-1]]
    assert choices[0]["delta"]["role"] == "assistant"
    calls = [choice["delta"]["tool_calls"][0] for choice in choices if choice["delta"].get("tool_calls")]
    assert calls[0]["function"] == {"name": "weather", "arguments": ""}
    assert calls[0]["id"].startswith("call_")
    assert all(call["id"] is None for call in calls[1:])
    assert choices[-1]["finish_reason"] == "tool_calls"
    whole = (await worker.post("/v1/chat/completions", body)).json()["choices"][0]["message"]["tool_calls"][0]
    assert "".join(call["function"]["arguments"] for call in calls) == whole["function"]["arguments"]


async def test_a_call_cut_short_by_the_limit_is_plain_text(worker: Any) -> None:
    choice = (await worker.chat("x", tools=TOOLS, tool_choice="required", max_tokens=2)).json()["choices"][0]
    assert (choice["finish_reason"], choice["message"]["tool_calls"]) == ("length", None)
    assert len(choice["message"]["content"]) == 8


@pytest.mark.parametrize("choice", [None, "auto", "none"])
async def test_tools_that_are_not_forced_are_not_called(worker: Any, choice: Any) -> None:
    answer = (await worker.chat("x", tools=TOOLS, tool_choice=choice, max_tokens=5)).json()["choices"][0]
    assert (answer["finish_reason"], answer["message"]["tool_calls"]) == ("length", None)


async def test_tools_switched_off_are_left_out_of_the_prompt(worker: Any) -> None:
    sizes = [
        (await worker.chat("x", tools=TOOLS, tool_choice=choice, max_tokens=1)).json()["usage"]["prompt_tokens"]
        for choice in ("auto", "none")
    ]
    assert sizes[0] > sizes[1]


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "missing"}}},
        {"tool_choice": {"type": "function", "function": {"name": "weather"}}},
        {"tools": TOOLS, "tool_choice": "sometimes"},
        {"tools": [{"type": "function"}]},
        {
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "banana"}}}],
            "tool_choice": "required",
        },
    ],
    ids=["unknown", "no tools", "bad choice", "nameless", "bad schema"],
)
async def test_tools_that_make_no_sense_get_400(worker: Any, fields: dict[str, Any]) -> None:
    assert (await worker.chat("x", **fields)).status_code == 400
