"""/v1/chat/completions and /v1/completions, as SGLang's OpenAI server answers them.

Checks a request in SGLang's order and words, hands it to the worker, and shapes what comes back. Called by routes.py.
Not here: events of a stream (openai_stream), sampling parameters (calls), forced tool calls (tool_calls).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from workers.simulated import tool_calls
from workers.simulated.calls import Call, namespaces_of, rank_of, rids_of, sampling_of
from workers.simulated.chat_template import PART_TYPES, render_chat
from workers.simulated.errors import BadRequest
from workers.simulated.generation import Generation, Wanted
from workers.simulated.logprobs import chat_logprobs, completion_logprobs
from workers.simulated.openai_stream import LogprobsSince, TextStream, unix_time, usage_of, weight_versions
from workers.simulated.reply import Reply, Request
from workers.simulated.schemas import ChatRequest, Common, CompletionRequest, decode
from workers.simulated.tool_calls import ToolCallStream
from workers.simulated.worker import SimulatedWorker

_ROLES = {"system", "user", "assistant", "tool", "function", "developer", "latest_reminder"}


async def chat_completions(worker: SimulatedWorker, request: Request, reply: Reply) -> None:
    """POST /v1/chat/completions."""
    body = decode(ChatRequest, request.body)
    call, forced = chat_call(worker, body, request)
    if body.stream:
        await _stream_chat(worker, body, call, forced, reply)
        return
    generations = await worker.complete(call, reply)
    logprobs = _logprobs(worker, body)
    choices = [_chat_choice(generation, index, forced, logprobs) for index, generation in enumerate(generations)]
    reply.send_json(_answer(worker, "chat.completion", body, generations, choices))


def chat_call(worker: SimulatedWorker, body: ChatRequest, request: Request) -> tuple[Call, str | None]:
    """What a chat request asks of the engine, and the name of the tool it forces. Raises BadRequest."""
    _check_chat(body)
    forced = tool_calls.forced_tool(body)
    if body.input_ids is not None:
        prompt = body.input_ids
    else:
        tools = None if body.tool_choice == "none" else body.tools
        prompt = render_chat(worker.tokenizer, body.messages, tools, continue_final_message=body.continue_final_message)
    limit = body.max_completion_tokens or body.max_tokens
    return (
        Call(
            prompts=[prompt],
            samplings=[sampling_of(body, max_tokens=limit)],
            namespaces=namespaces_of(body, 1, body.model, lora=worker.options.lora),
            rids=rids_of(body.rid, body.n),
            n=body.n,
            rank=rank_of(body, request.headers),
            fixed=tool_calls.arguments_text(body, forced, worker.options.seed),
            wanted=[Wanted(top=max(body.top_logprobs or 0, 0), text=True)] if body.logprobs else (),
        ),
        forced,
    )


async def completions(worker: SimulatedWorker, request: Request, reply: Reply) -> None:
    """POST /v1/completions."""
    body = decode(CompletionRequest, request.body)
    if body.max_tokens <= 0:
        raise BadRequest("max_tokens must be positive", kind="Bad Request")
    prompts, texts = _prompts_of(worker, body)
    call = Call(
        prompts=prompts,
        text=isinstance(body.prompt, str) or isinstance(body.prompt[0], str),
        samplings=[sampling_of(body, max_tokens=body.max_tokens)] * len(prompts),
        namespaces=namespaces_of(body, len(prompts), body.model, lora=worker.options.lora),
        rids=rids_of(body.rid, len(prompts) * body.n),
        n=body.n,
        rank=rank_of(body, request.headers),
        wanted=[Wanted(start=0 if body.echo else None, top=max(body.logprobs, 0), text=True)] * len(prompts)
        if body.logprobs is not None
        else (),
    )
    echo = [text for text in texts for _ in range(body.n)] if body.echo else []
    if body.stream:
        stream = _text_stream(worker, body, reply, chat=False, count=len(prompts) * body.n, echo=echo)
        await _run_stream(worker, call, stream, body, reply)
        return
    generations = await worker.complete(call, reply)
    logprobs = _logprobs(worker, body)
    choices = [
        {
            "index": index,
            "text": (echo[index] if echo else "") + generation.text,
            "logprobs": logprobs and logprobs(generation, 0),
            "finish_reason": (generation.finish_reason or {}).get("type"),
            "matched_stop": (generation.finish_reason or {}).get("matched"),
        }
        for index, generation in enumerate(generations)
    ]
    reply.send_json(_answer(worker, "text_completion", body, generations, choices))


async def _stream_chat(
    worker: SimulatedWorker, body: ChatRequest, call: Call, forced: str | None, reply: Reply
) -> None:
    stream: TextStream
    if forced is None:
        stream = _text_stream(worker, body, reply, chat=True, count=body.n, echo=())
    else:
        stream = ToolCallStream(reply, model=body.model, name=forced, cache_report=worker.options.cache_report)
    await _run_stream(worker, call, stream, body, reply)


def _text_stream(
    worker: SimulatedWorker, body: Common, reply: Reply, *, chat: bool, count: int, echo: Sequence[str]
) -> TextStream:
    options = body.stream_options
    return TextStream(
        reply,
        chat=chat,
        model=body.model,
        generations=count,
        each_usage=bool(options and options.continuous_usage_stats),
        cache_report=worker.options.cache_report,
        echo=echo,
        details=body.return_cached_tokens_details,
        logprobs=_logprobs(worker, body),
    )


async def _run_stream(worker: SimulatedWorker, call: Call, stream: TextStream, body: Common, reply: Reply) -> None:
    """Streams to the end. The status line goes out with the first event, as SGLang waits for it."""
    generations = await worker.stream(call, reply, stream.register, stream.advance)
    if not reply.closed:
        options = body.stream_options
        stream.finish(generations, call.n, include_usage=bool(options and options.include_usage))


def _answer(
    worker: SimulatedWorker,
    kind: str,
    body: Common,
    generations: Sequence[Generation],
    choices: list[dict[str, Any]],
) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "id": generations[0].rid,
        "object": kind,
        "created": unix_time(),
        "model": body.model,
        "choices": choices,
        "usage": usage_of(generations, body.n, cache_report=worker.options.cache_report),
        "metadata": {
            "weight_version": "default",
            "weight_versions": weight_versions(generations[0].produced),
        },
    }
    if body.return_cached_tokens_details and generations[0].cached_tokens:
        answer["sglext"] = {"cached_tokens_details": {"device": generations[0].cached_tokens, "host": 0}}
    return answer


def _logprobs(worker: SimulatedWorker, body: Common) -> LogprobsSince | None:
    """What makes the `logprobs` of this request's choices; None where it wants none."""
    if isinstance(body, CompletionRequest):
        return None if body.logprobs is None else partial(completion_logprobs, worker.tokenizer)
    return partial(chat_logprobs, worker.tokenizer) if isinstance(body, ChatRequest) and body.logprobs else None


def _chat_choice(
    generation: Generation, index: int, forced: str | None, logprobs: LogprobsSince | None
) -> dict[str, Any]:
    reason = dict(generation.finish_reason or {})
    message: dict[str, Any] = {
        "role": "assistant",
        "content": generation.text,
        "reasoning_content": None,
        "tool_calls": None,
    }
    if forced is not None and reason.get("type") == "stop":
        message["content"] = ""
        message["tool_calls"] = [tool_calls.whole_call(generation, forced)]
        reason = {"type": "tool_calls", "matched": None}
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs and logprobs(generation, 0),
        "finish_reason": reason.get("type"),
        "matched_stop": reason.get("matched"),
    }


def _check_chat(body: ChatRequest) -> None:
    if not body.messages:
        raise BadRequest("Messages cannot be empty.")
    for message in body.messages:
        role = message.get("role")
        if not isinstance(role, str) or role.lower() not in _ROLES:
            allowed = ", ".join(repr(name) for name in sorted(_ROLES))
            raise BadRequest(f"'role' must be one of {allowed} (case-insensitive).", kind="Bad Request")
        content = message.get("content")
        if not (content is None or isinstance(content, str | list)) or (role == "user" and content is None):
            raise BadRequest("'content' must be a string or a list of content parts", kind="Bad Request")
        if isinstance(content, list):
            _check_parts(content)
    tool_calls.check(body)


def _check_parts(parts: Sequence[object]) -> None:
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in PART_TYPES:
            raise BadRequest(f"unknown type of content part: {kind!r}", kind="Bad Request")


def _prompts_of(worker: SimulatedWorker, body: CompletionRequest) -> tuple[list[Sequence[int]], list[str]]:
    """Prompts as tokens and as text, whichever of the four forms the request used."""
    prompt = body.prompt
    if not prompt or (isinstance(prompt, list) and all(part == "" or part == [] for part in prompt)):
        raise BadRequest("Prompt cannot be empty")
    if isinstance(prompt, str):
        return [worker.tokenizer.encode(prompt)], [prompt]
    texts = [part for part in prompt if isinstance(part, str)]
    if len(texts) == len(prompt):
        return [worker.tokenizer.encode(text) for text in texts], texts
    ids = [part for part in prompt if isinstance(part, int)]
    lists: list[Sequence[int]] = [part for part in prompt if isinstance(part, list)]
    if len(ids) == len(prompt):
        lists = [ids]
    elif len(lists) != len(prompt):
        raise BadRequest("Input should be a valid string or a list of token ids", kind="Bad Request")
    return lists, [worker.tokenizer.decode(tokens) for tokens in lists] if body.echo else []
