"""/v1/responses: OpenAI's Responses shape over the chat template. Stateless: nothing is stored or looked up.

Called by routes.py. The events of a stream are those of SGLang for a plain text answer, in its order.
"""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from workers.simulated import openai_api, tool_calls
from workers.simulated.errors import BadRequest, NotFound
from workers.simulated.generation import Generation
from workers.simulated.openai_stream import unix_time
from workers.simulated.reply import Reply, Request
from workers.simulated.schemas import ChatRequest, decode
from workers.simulated.worker import SimulatedWorker

_encode = msgspec.json.Encoder().encode


class ResponsesRequest(msgspec.Struct, kw_only=True):
    """The body, as far as it is read."""

    input: str | list[dict[str, Any]]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    stream: bool | None = False
    stop: str | list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: str | dict[str, Any] = "auto"
    parallel_tool_calls: bool | None = True
    previous_response_id: str | None = None
    store: bool | None = True
    background: bool | None = False
    metadata: dict[str, Any] | None = None
    request_id: str | None = None
    user: str | None = None
    truncation: str | None = "disabled"
    extra_key: str | None = None
    cache_salt: str | None = None
    routed_dp_rank: int | None = None
    data_parallel_rank: int | None = None


async def responses(worker: SimulatedWorker, request: Request, reply: Reply) -> None:
    """POST /v1/responses."""
    body = decode(ResponsesRequest, request.body)
    if body.previous_response_id is not None:
        raise BadRequest(_NO_STORE, kind="invalid_request_error", param="previous_response_id")
    if body.model is None:
        raise BadRequest("model: Input should be a valid string", kind="invalid_request_error")
    if body.model != worker.options.model:
        raise NotFound(f"The model '{body.model}' does not exist", param="model")
    chat = _as_chat(body)
    call, forced = openai_api.chat_call(worker, chat, request)
    identity = body.request_id or f"resp_{uuid.uuid4().hex}"
    if body.stream:
        stream = _EventStream(reply, worker, body, identity, forced)
        generations = await worker.stream(call, reply, lambda rid, index: None, stream.advance)
        if not reply.closed:
            stream.finish(generations[0])
        return
    generation = (await worker.complete(call, reply))[0]
    item = _item(generation, forced, f"msg_{uuid.uuid4().hex[:24]}")
    reply.send_json(_response(worker, body, identity, [item], generation))


_NO_STORE = (
    "Response store is disabled. Stateful Responses require --enable-response-store on a standalone server; "
    "response storage is unavailable in PD mode."
)


async def stored(worker: SimulatedWorker, request: Request, reply: Reply) -> None:
    """GET /v1/responses/{id}: refused, as by a server without a response store."""
    raise BadRequest(_NO_STORE, kind="invalid_request_error", param="response_id")


class _EventStream:
    """Writes one streamed response: created, in progress, one item, completed."""

    def __init__(
        self, reply: Reply, worker: SimulatedWorker, body: ResponsesRequest, identity: str, forced: str | None
    ) -> None:
        self._reply = reply
        self._worker = worker
        self._body = body
        self._identity = identity
        self._forced = forced
        self._item_id = f"msg_{uuid.uuid4().hex[:24]}"
        self._number = 0
        self._sent = 0

    def advance(self, generation: Generation) -> None:
        if self._reply.closed:
            return
        events: list[bytes] = []
        where: dict[str, Any] = {"item_id": self._item_id, "output_index": 0}
        if self._number == 0:
            start = _response(self._worker, self._body, self._identity, [], None)
            events.append(self._event("response.created", {"response": start}))
            events.append(self._event("response.in_progress", {"response": start}))
            item: dict[str, Any] = {**_item(generation, self._forced, self._item_id), "status": "in_progress"}
            item["content" if self._forced is None else "arguments"] = [] if self._forced is None else ""
            events.append(self._event("response.output_item.added", {"output_index": 0, "item": item}))
            if self._forced is None:
                part: dict[str, Any] = {"annotations": [], "text": "", "type": "output_text", "logprobs": None}
                events.append(self._event("response.content_part.added", {**where, "content_index": 0, "part": part}))
        piece = generation.plan.text[self._sent : generation.text_end]
        self._sent = generation.text_end
        if piece and self._forced is None:
            fields = {**where, "content_index": 0, "delta": piece, "logprobs": []}
            events.append(self._event("response.output_text.delta", fields))
        elif piece:
            events.append(self._event("response.function_call_arguments.delta", {**where, "delta": piece}))
        self._reply.write(b"".join(events))

    def finish(self, generation: Generation) -> None:
        where: dict[str, Any] = {"item_id": self._item_id, "output_index": 0}
        item = _item(generation, self._forced, self._item_id)
        events: list[bytes] = []
        if self._forced is None:
            part = item["content"][0]
            text = {**where, "content_index": 0, "text": generation.text, "logprobs": []}
            events.append(self._event("response.output_text.done", text))
            events.append(self._event("response.content_part.done", {**where, "content_index": 0, "part": part}))
        else:
            fields = {**where, "name": self._forced, "arguments": generation.text}
            events.append(self._event("response.function_call_arguments.done", fields))
        events.append(self._event("response.output_item.done", {"output_index": 0, "item": item}))
        final = _response(self._worker, self._body, self._identity, [item], generation)
        events.append(self._event(f"response.{final['status']}", {"response": final}))
        self._reply.write(b"".join(events))
        self._reply.end()

    def _event(self, kind: str, fields: dict[str, Any]) -> bytes:
        number = self._number
        self._number += 1
        return b"event: %s\ndata: %s\n\n" % (
            kind.encode(),
            _encode({"type": kind, "sequence_number": number, **fields}),
        )


def _item(generation: Generation, forced: str | None, identity: str) -> dict[str, Any]:
    if forced is not None:
        return {
            "type": "function_call",
            "id": f"fc_{identity.removeprefix('msg_')}",
            "call_id": tool_calls.call_id(),
            "name": forced,
            "arguments": generation.text,
            "status": "completed",
        }
    part: dict[str, Any] = {"annotations": [], "text": generation.text, "type": "output_text", "logprobs": None}
    return {
        "id": identity,
        "content": [part],
        "role": "assistant",
        "status": "completed",
        "type": "message",
        "phase": "final_answer",
    }


def _response(
    worker: SimulatedWorker,
    body: ResponsesRequest,
    identity: str,
    output: list[dict[str, Any]],
    generation: Generation | None,
) -> dict[str, Any]:
    """The response object; still in progress where `generation` is None."""
    status = "in_progress"
    if generation is not None:
        reason = (generation.finish_reason or {}).get("type")
        status = "incomplete" if reason == "length" and body.max_output_tokens is not None else "completed"
    return {
        "id": identity,
        "object": "response",
        "created_at": unix_time(),
        "model": body.model or worker.options.model,
        "output": output,
        "status": status,
        "usage": None if generation is None else _usage(worker, generation),
        "parallel_tool_calls": True if body.parallel_tool_calls is None else body.parallel_tool_calls,
        "tool_choice": body.tool_choice,
        "tools": body.tools,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": body.store,
        "temperature": body.temperature,
        "text": {"format": {"type": "text"}} if output else None,
        "top_p": body.top_p,
        "truncation": body.truncation,
        "user": body.user,
        "metadata": body.metadata or {},
    }


def _usage(worker: SimulatedWorker, generation: Generation) -> dict[str, Any]:
    cached = generation.cached_tokens if worker.options.cache_report else 0
    return {
        "input_tokens": len(generation.prompt),
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": generation.produced,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": len(generation.prompt) + generation.produced,
    }


def _as_chat(body: ResponsesRequest) -> ChatRequest:
    turns: list[dict[str, Any]] = []
    if body.instructions:
        turns.append({"role": "system", "content": body.instructions})
    if isinstance(body.input, str):
        turns.append({"role": "user", "content": body.input})
    else:
        turns += [_turn(item) for item in body.input]
    tools = [
        {
            "type": "function",
            "function": {key: tool.get(key) for key in ("description", "name", "parameters")},
        }
        for tool in body.tools
        if tool.get("type") == "function"
    ]
    choice: str | dict[str, Any] | None = body.tool_choice if isinstance(body.tool_choice, str) else None
    if isinstance(body.tool_choice, dict) and body.tool_choice.get("name"):
        choice = {"type": "function", "function": {"name": body.tool_choice["name"]}}
    return ChatRequest(
        model=body.model or "default",
        messages=turns,
        max_completion_tokens=None if body.max_output_tokens is None else body.max_output_tokens - 2,
        stream=bool(body.stream),
        stop=body.stop,
        temperature=body.temperature,
        top_p=body.top_p,
        tools=tools or None,
        tool_choice=choice,
        extra_key=body.extra_key,
        cache_salt=body.cache_salt,
        routed_dp_rank=body.routed_dp_rank,
        data_parallel_rank=body.data_parallel_rank,
    )


def _turn(item: dict[str, Any]) -> dict[str, Any]:
    """One input item as a chat message."""
    kind = item.get("type", "message")
    if kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        return {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}
    if kind == "function_call_output":
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": str(item.get("output", ""))}
    content = item.get("content")
    if isinstance(content, list):
        content = [_part(part) for part in content]
        if all(part["type"] == "text" for part in content):
            content = "".join(part["text"] for part in content)
    return {"role": item.get("role", "user"), "content": content}


def _part(part: dict[str, Any]) -> dict[str, Any]:
    if part.get("type") == "input_image":
        return {"type": "image_url", "image_url": part.get("image_url")}
    return {"type": "text", "text": str(part.get("text", ""))}
