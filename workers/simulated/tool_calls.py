"""Tool calls that a request forces (`tool_choice` "required" or a named function), whole and streamed.

The simulated model never calls a tool of its own accord. A forced call's arguments are a sample of the tool's schema.
The wire shapes are SGLang's with a tool-call parser configured. Called by openai_api and messages_api.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
import xxhash

from workers.simulated.constrained import Unsupported, json_sample
from workers.simulated.errors import BadRequest
from workers.simulated.generation import Generation
from workers.simulated.openai_stream import TextStream
from workers.simulated.reply import Reply
from workers.simulated.schemas import ChatRequest

_encode = msgspec.json.Encoder().encode


def check(body: ChatRequest) -> None:
    """Raises BadRequest where tools and choice do not fit, in SGLang's words."""
    names = {_name(tool) for tool in body.tools or ()}
    if body.tool_choice == "required" and not names:
        raise BadRequest("Tools cannot be empty if tool choice is set to required.")
    if isinstance(body.tool_choice, dict):
        if not names:
            raise BadRequest("Tools cannot be empty if tool choice is set to a specific tool.")
        wanted = (body.tool_choice.get("function") or {}).get("name")
        if wanted not in names:
            raise BadRequest(f"Tool '{wanted}' not found in tools list.")
    elif body.tool_choice not in (None, "auto", "none", "required"):
        raise BadRequest("Input should be 'auto', 'required' or 'none'", kind="Bad Request")


def forced_tool(body: ChatRequest) -> str | None:
    """The tool that must be called, or None."""
    if isinstance(body.tool_choice, dict):
        return str((body.tool_choice.get("function") or {}).get("name"))
    if body.tool_choice == "required" and body.tools:
        return _name(body.tools[0])
    return None


def arguments_text(body: ChatRequest, forced: str | None, seed: int) -> str | None:
    """The arguments of the forced call as JSON text: what the model is to say. Raises BadRequest."""
    if forced is None:
        return None
    function = next(tool["function"] for tool in body.tools or () if _name(tool) == forced)
    try:
        return json_sample(function.get("parameters") or {"type": "object"}, seed ^ xxhash.xxh3_64_intdigest(forced))
    except Unsupported as error:
        raise BadRequest(f"Tool '{forced}' has a schema that cannot be compiled: {error}") from error


def _name(tool: dict[str, Any]) -> str:
    function = tool.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRequest("Field required: tools.function.name", kind="Bad Request")
    return str(function["name"])


def call_id() -> str:
    """A fresh tool-call id in SGLang's form."""
    return f"call_{uuid.uuid4().hex[:24]}"


def whole_call(generation: Generation, name: str) -> dict[str, Any]:
    """The tool call of a finished answer."""
    return {
        "id": call_id(),
        "index": 0,
        "type": "function",
        "function": {"name": name, "arguments": generation.text},
    }


class ToolCallStream(TextStream):
    """Streams a forced tool call: one event with the name, then the arguments as they come."""

    def __init__(self, reply: Reply, *, model: str, name: str, cache_report: bool) -> None:
        super().__init__(reply, chat=True, model=model, generations=1, each_usage=False, cache_report=cache_report)
        self._out = reply
        self._name_sent = False
        self._call_name = name
        self._sent = 0

    def advance(self, generation: Generation) -> None:
        if self._out.closed:
            return
        deltas: list[dict[str, Any]] = []
        first = not self._name_sent
        if first:
            self._name_sent = True
            deltas.append(_call_delta(call_id(), {"name": self._call_name, "arguments": ""}))
        piece = generation.plan.text[self._sent : generation.text_end]
        self._sent = generation.text_end
        if piece:
            deltas.append(_call_delta(None, {"name": None, "arguments": piece}))
        if generation.finish_reason is not None:
            self.finished.append(0)
        events = [self._delta_event(generation.rid, delta) for delta in deltas]
        if first:
            events.insert(0, self._chat_event(generation, 0, {"role": "assistant", "content": ""}))
        self._out.write(b"".join(events))

    def finish(self, generations: Sequence[Generation], n: int, *, include_usage: bool) -> None:
        for generation in generations:
            if generation.finish_reason is not None and generation.finish_reason["type"] == "stop":
                generation.finish_reason = {"type": "tool_calls", "matched": None}
        super().finish(generations, n, include_usage=include_usage)

    def _delta_event(self, rid: str, delta: dict[str, Any]) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, "matched_stop": None}
        return b"data: %s\n\n" % _encode(self._head(rid) | {"choices": [choice], "usage": None})


def _call_delta(identity: str | None, function: dict[str, Any]) -> dict[str, Any]:
    call = {"id": identity, "index": 0, "type": "function", "function": function}
    return {"role": None, "content": None, "reasoning_content": None, "tool_calls": [call]}
