"""/v1/messages and /v1/messages/count_tokens: Anthropic's shape over the chat route, as SGLang translates it.

Called by routes.py. Not here: the chat template (openai_api renders the translated request).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import msgspec

from workers.simulated import openai_api, tool_calls
from workers.simulated.chat_template import render_chat
from workers.simulated.errors import ApiError, BadRequest, InvalidBody
from workers.simulated.generation import Generation
from workers.simulated.reply import Reply, Request
from workers.simulated.schemas import DEFAULT_MODEL, ChatRequest, decode
from workers.simulated.worker import SimulatedWorker

_encode = msgspec.json.Encoder().encode

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "abort": "end_turn"}
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def error_type(error: ApiError) -> str:
    """Anthropic's name for an error; what the chat route beneath refuses keeps its own name, as in SGLang."""
    if error.status < 500 and isinstance(error, BadRequest) and error.kind != "Bad Request":
        return error.kind
    return _ERROR_TYPES.get(error.status, "api_error")


async def messages(worker: SimulatedWorker, request: Request, reply: Reply) -> None:
    """POST /v1/messages."""
    body = _checked(decode(MessagesRequest, request.body))
    if body.max_tokens is None:
        raise InvalidBody("max_tokens: Field required")
    if body.max_tokens <= 0:
        raise InvalidBody("max_tokens: Value error, max_tokens must be positive")
    chat = _as_chat(body)
    call, forced = openai_api.chat_call(worker, chat, request)
    if body.stream:
        stream = _EventStream(reply, worker, chat.model, forced)
        generations = await worker.stream(call, reply, lambda rid, index: None, stream.advance)
        if not reply.closed:
            stream.finish(generations[0])
        return
    generation = (await worker.complete(call, reply))[0]
    called = forced is not None and (generation.finish_reason or {}).get("type") == "stop"
    block: dict[str, Any] = {"type": "text", "text": generation.text}
    if called:
        arguments = msgspec.json.decode(generation.text)
        block = {"type": "tool_use", "id": tool_calls.call_id(), "name": forced, "input": arguments}
    reason = "tool_use" if called else _STOP_REASONS[(generation.finish_reason or {"type": "stop"})["type"]]
    answer = _message(chat.model, content=[block], stop_reason=reason)
    answer["usage"] = _usage(worker, generation, generation.produced)
    reply.send_json(answer)


async def count_tokens(worker: SimulatedWorker, request: Request, reply: Reply) -> None:
    """POST /v1/messages/count_tokens."""
    chat = _as_chat(_checked(decode(MessagesRequest, request.body)))
    reply.send_json({"input_tokens": len(render_chat(worker.tokenizer, chat.messages, chat.tools))})


class _EventStream:
    """Writes one streamed message: start, one content block, stop."""

    def __init__(self, reply: Reply, worker: SimulatedWorker, model: str, forced: str | None) -> None:
        self._reply = reply
        self._worker = worker
        self._model = model
        self._forced = forced
        self._sent = 0
        self._open = False

    def advance(self, generation: Generation) -> None:
        if self._reply.closed:
            return
        events: list[bytes] = []
        if not self._open:
            self._open = True
            start = _message(self._model, content=[])
            start["usage"] = _usage(self._worker, generation, 0)
            block: dict[str, Any] = {"type": "text", "text": ""}
            if self._forced is not None:
                block = {"type": "tool_use", "id": tool_calls.call_id(), "name": self._forced, "input": {}}
            events.append(_event("message_start", {"message": start}))
            events.append(_event("content_block_start", {"index": 0, "content_block": block}))
        piece = generation.plan.text[self._sent : generation.text_end]
        self._sent = generation.text_end
        if piece:
            delta = {"type": "text_delta", "text": piece}
            if self._forced is not None:
                delta = {"type": "input_json_delta", "partial_json": piece}
            events.append(_event("content_block_delta", {"index": 0, "delta": delta}))
        self._reply.write(b"".join(events))

    def finish(self, generation: Generation) -> None:
        kind = (generation.finish_reason or {"type": "stop"})["type"]
        reason = "tool_use" if self._forced is not None and kind == "stop" else _STOP_REASONS[kind]
        self._reply.write(
            _event("content_block_stop", {"index": 0})
            + _event(
                "message_delta", {"delta": {"stop_reason": reason}, "usage": {"output_tokens": generation.produced}}
            )
            + _event("message_stop", {})
        )
        self._reply.end()


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), _encode({"type": kind, **fields}))


def _message(model: str, *, content: list[dict[str, Any]], stop_reason: str | None = None) -> dict[str, Any]:
    message: dict[str, Any] = {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "content": content,
        "model": model,
    }
    return {**message, "stop_reason": stop_reason} if stop_reason else message


def _usage(worker: SimulatedWorker, generation: Generation, output_tokens: int) -> dict[str, int]:
    """Anthropic counts cached tokens beside the input, not within it."""
    cached = generation.cached_tokens if worker.options.cache_report else 0
    usage = {"input_tokens": len(generation.prompt) - cached, "output_tokens": output_tokens}
    return {**usage, "cache_read_input_tokens": cached} if cached else usage


class MessagesRequest(msgspec.Struct, kw_only=True):
    """The body, as far as it is read."""

    model: str | None = None
    messages: list[dict[str, Any]] | None = None
    max_tokens: int | None = None
    system: str | list[dict[str, Any]] | None = None
    stream: bool = False
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    routed_dp_rank: int | None = None


def _checked(body: MessagesRequest) -> MessagesRequest:
    """Itself. Raises InvalidBody, naming every missing field as SGLang does."""
    missing = [name for name, value in (("model", body.model), ("messages", body.messages)) if value is None]
    if missing:
        missing += ["max_tokens"] if body.max_tokens is None else []
        raise InvalidBody("; ".join(f"{name}: Field required" for name in missing))
    return body


def _as_chat(body: MessagesRequest) -> ChatRequest:
    turns: list[dict[str, Any]] = []
    if body.system:
        system = body.system if isinstance(body.system, str) else "\n".join(_texts(body.system))
        turns.append({"role": "system", "content": system})
    for message in body.messages or ():
        turns += _turns(message)
    tools = [
        {
            "type": "function",
            "function": {
                "description": tool.get("description"),
                "name": tool.get("name"),
                "parameters": tool.get("input_schema"),
            },
        }
        for tool in body.tools or ()
    ]
    return ChatRequest(
        model=body.model or DEFAULT_MODEL,
        messages=turns,
        max_tokens=body.max_tokens,
        stream=body.stream,
        stop=body.stop_sequences,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        tools=tools or None,
        tool_choice=_choice(body.tool_choice),
        routed_dp_rank=body.routed_dp_rank,
    )


def _choice(choice: Mapping[str, Any] | None) -> str | dict[str, Any] | None:
    if choice is None:
        return None
    if choice.get("type") == "tool":
        return {"type": "function", "function": {"name": choice.get("name")}}
    return {"any": "required", "none": "none"}.get(str(choice.get("type")), "auto")


def _turns(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One Anthropic message as chat messages: tool results become messages of their own."""
    role, content = message.get("role"), message.get("content")
    if not isinstance(content, list):
        return [{"role": role, "content": content}]
    turns: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for block in content:
        kind = block.get("type")
        if kind == "tool_result":
            inner = block.get("content")
            text = inner if isinstance(inner, str) else "\n".join(_texts(inner or []))
            turns.append({"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": text})
        elif kind == "tool_use":
            calls.append({"function": {"name": block.get("name"), "arguments": block.get("input") or {}}})
        elif kind == "image":
            parts.append({"type": "image_url", "image_url": block.get("source")})
        elif kind == "text":
            parts.append({"type": "text", "text": block.get("text") or ""})
    if parts or calls:
        texts = all(part["type"] == "text" for part in parts)
        joined: Any = "".join(part["text"] for part in parts) if texts else parts
        turn: dict[str, Any] = {"role": role, "content": joined}
        if calls:
            turn["tool_calls"] = calls
        turns.append(turn)
    return turns


def _texts(blocks: list[dict[str, Any]]) -> list[str]:
    return [str(block["text"]) for block in blocks if block.get("type") == "text" and block.get("text")]
