"""/v1/messages: Anthropic's shape, over the same prompt cache as the chat route."""

from __future__ import annotations

import json
from typing import Any

import pytest

TEXT = "a prompt that is long enough to leave something in the prefix cache for the next one; " * 3
TOOL = {
    "name": "f",
    "input_schema": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
}


def message(content: Any = TEXT, **fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 3, "messages": [{"role": "user", "content": content}], **fields}


async def stream(worker: Any, body: dict[str, Any]) -> list[dict[str, Any]]:
    response = await worker.post("/v1/messages", {**body, "stream": True})
    blocks = response.text.strip().split("\n\n")
    events = [json.loads(block.split("\ndata: ")[1]) for block in blocks]
    assert [block.split("\n")[0] for block in blocks] == [f"event: {event['type']}" for event in events]
    return events


async def test_an_answer_has_the_real_servers_fields_and_counts_cached_tokens_apart(worker: Any) -> None:
    first = (await worker.post("/v1/messages", message())).json()
    assert list(first) == ["id", "type", "role", "content", "model", "stop_reason", "usage"]
    assert first["stop_reason"] == "max_tokens"
    assert first["content"][0]["type"] == "text"
    assert "cache_read_input_tokens" not in first["usage"]
    again = (await worker.post("/v1/messages", message())).json()["usage"]
    assert again["cache_read_input_tokens"] > 0
    assert again["input_tokens"] + again["cache_read_input_tokens"] == first["usage"]["input_tokens"]


async def test_the_prompt_is_that_of_the_equivalent_chat(worker: Any) -> None:
    await worker.post("/v1/messages", message([{"type": "text", "text": TEXT}], system="be brief"))
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": TEXT}]
    usage = (await worker.chat(messages, max_tokens=1)).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > usage["prompt_tokens"] // 2


async def test_a_stream_is_start_block_deltas_stop(worker: Any) -> None:
    events = await stream(worker, message())
    kinds = [event["type"] for event in events]
    assert kinds == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 3,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    whole = (await worker.post("/v1/messages", message())).json()
    text = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
    assert text == whole["content"][0]["text"]
    assert events[-2]["delta"] == {"stop_reason": "max_tokens"}
    assert events[-2]["usage"] == {"output_tokens": 3}


async def test_a_forced_tool_is_called_whole_and_streamed(worker: Any) -> None:
    body = message(tools=[TOOL], tool_choice={"type": "tool", "name": "f"}, max_tokens=50)
    answer = (await worker.post("/v1/messages", body)).json()
    (block,) = answer["content"]
    assert (block["type"], block["name"], answer["stop_reason"]) == ("tool_use", "f", "tool_use")
    assert isinstance(block["input"]["x"], int)
    events = await stream(worker, body)
    text = "".join(event["delta"]["partial_json"] for event in events if event["type"] == "content_block_delta")
    assert json.loads(text) == block["input"]
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


async def test_tool_results_images_and_past_calls_are_understood(worker: Any) -> None:
    turns = [
        {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "u"}}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "7"}]},
    ]
    response = await worker.post("/v1/messages", {"model": "m", "max_tokens": 2, "messages": turns})
    assert response.status_code == 200
    assert response.json()["usage"]["input_tokens"] > 256


async def test_tokens_are_counted_without_generating(worker: Any) -> None:
    counted = (await worker.post("/v1/messages/count_tokens", message())).json()["input_tokens"]
    assert counted == (await worker.post("/v1/messages", message())).json()["usage"]["input_tokens"]


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        ({"model": "m"}, "invalid_request_error", "messages: Field required; max_tokens: Field required"),
        (
            {**message(), "max_tokens": 0},
            "invalid_request_error",
            "max_tokens: Value error, max_tokens must be positive",
        ),
        (message(temperature=-1), "BadRequestError", "temperature must be a non-negative finite number, got -1.0."),
    ],
    ids=["missing", "zero", "temperature"],
)
async def test_errors_have_anthropics_shape(worker: Any, body: dict[str, Any], kind: str, text: str) -> None:
    response = await worker.post("/v1/messages", body)
    assert response.status_code == 400
    assert response.json() == {"type": "error", "error": {"type": kind, "message": text}}
