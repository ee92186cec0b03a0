"""/v1/responses: OpenAI's Responses shape, stateless."""

from __future__ import annotations

import json
from typing import Any

import pytest

MODEL = "simulated"


async def stream(worker: Any, body: dict[str, Any]) -> list[dict[str, Any]]:
    response = await worker.post("/v1/responses", {"model": MODEL, **body, "stream": True})
    return [json.loads(block.split("\ndata: ")[1]) for block in response.text.strip().split("\n\n")]


async def test_an_answer_holds_one_message_and_usage_in_the_responses_shape(worker: Any) -> None:
    body = {"model": MODEL, "input": "hello", "max_output_tokens": 6}
    answer = (await worker.post("/v1/responses", body)).json()
    (item,) = answer["output"]
    assert (item["type"], item["role"], item["phase"]) == ("message", "assistant", "final_answer")
    assert item["content"][0]["type"] == "output_text"
    assert answer["status"] == "incomplete"
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}
    usage = answer["usage"]
    assert usage["output_tokens"] == 4  # two fewer than asked for: SGLang keeps room for BOS and EOS
    assert usage["input_tokens_details"]["cached_tokens"] == 0
    assert usage["total_tokens"] == usage["input_tokens"] + 4


async def test_an_answer_that_ends_by_itself_is_completed(worker: Any) -> None:
    answer = (await worker.post("/v1/responses", {"model": MODEL, "input": "hello"})).json()
    assert (answer["status"], answer["incomplete_details"]) == ("completed", None)


async def test_the_prompt_is_that_of_the_equivalent_chat(worker: Any) -> None:
    parts = [{"type": "input_text", "text": "hello there"}]
    body = {"model": MODEL, "instructions": "be brief", "input": [{"role": "user", "content": parts}]}
    used = (await worker.post("/v1/responses", body)).json()["usage"]["input_tokens"]
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello there"}]
    assert used == (await worker.chat(messages, max_tokens=1)).json()["usage"]["prompt_tokens"]


async def test_a_stream_numbers_its_events_and_ends_with_the_whole_response(worker: Any) -> None:
    events = await stream(worker, {"input": "hello", "max_output_tokens": 5})
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * 3,
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "incomplete",
    ]
    text = "".join(event["delta"] for event in events if event["type"].endswith(".delta"))
    final = events[-1]["response"]
    assert final["output"][0]["content"][0]["text"] == text
    assert final["usage"]["output_tokens"] == 3


async def test_a_forced_function_is_called(worker: Any) -> None:
    tool = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}
    body = {"input": "go", "tools": [tool], "tool_choice": {"type": "function", "name": "f"}}
    answer = (await worker.post("/v1/responses", {"model": MODEL, **body})).json()
    (item,) = answer["output"]
    assert (item["type"], item["name"]) == ("function_call", "f")
    assert isinstance(json.loads(item["arguments"])["x"], int)
    events = await stream(worker, body)
    text = "".join(event["delta"] for event in events if event["type"].endswith("arguments.delta"))
    assert text == item["arguments"]
    turns = [{"role": "user", "content": "go"}, item, {"type": "function_call_output", "call_id": "c", "output": "1"}]
    assert (await worker.post("/v1/responses", {"model": MODEL, "input": turns})).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"model": MODEL}, 400, 400, None),
        ({"input": "x"}, 400, 400, None),
        ({"model": "other", "input": "x"}, 404, 404, "model"),
        ({"model": MODEL, "input": "x", "previous_response_id": "resp_1"}, 400, 400, "previous_response_id"),
    ],
    ids=["no input", "no model", "unknown model", "stateful"],
)
async def test_errors_are_nested_as_the_real_server_nests_them(
    worker: Any, body: dict[str, Any], status: int, code: int, param: str | None
) -> None:
    response = await worker.post("/v1/responses", body)
    assert response.status_code == status
    error = response.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert (error["code"], error["param"]) == (code, param)


async def test_stored_responses_cannot_be_fetched(worker: Any) -> None:
    response = await worker.get("/v1/responses/resp_1")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "response_id"
