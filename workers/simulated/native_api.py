"""SGLang's native routes: /generate, and the ones by which operators and load tests handle a server.

Called by routes.py. Not here: OpenAI's shapes (openai_api), what a server says about itself (info_api).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

import msgspec

from workers.simulated.calls import Call, logprobs_of, namespaces_of, rank_of_body, rids_of, sampling_of_fields
from workers.simulated.chat_template import render_chat
from workers.simulated.errors import Aborted, ApiError, BadRequest, InvalidBody
from workers.simulated.generation import Generation
from workers.simulated.logprobs import Logprobs
from workers.simulated.openai_stream import DONE, weight_versions
from workers.simulated.reply import Reply, Request
from workers.simulated.schemas import (
    AbortRequest,
    DetokenizeRequest,
    GenerateRequest,
    SamplingFields,
    TokenizeRequest,
    decode,
)
from workers.simulated.worker import SimulatedWorker

_encode = msgspec.json.Encoder().encode


async def generate(worker: SimulatedWorker, request: Request, reply: Reply) -> None:
    """POST /generate. Its errors have their own shape, and come inside the stream when one was asked for."""
    try:
        body = decode(GenerateRequest, request.body)
    except InvalidBody as error:
        if "unknown field" not in error.message:
            raise
        # Only sampling_params refuses unknown names; the real server falls over them.
        reply.send(b"Internal Server Error", 500, b"text/plain; charset=utf-8")
        return
    try:
        call, single = _generate_call(worker, body)
        if body.stream:
            await _stream(worker, call, single, reply)
            return
        generations = await worker.complete(call, reply)
    except Aborted:
        raise
    except ApiError as error:
        _refuse(error, reply, stream=body.stream)
        return
    answers = [_answer(worker, generation) for generation in generations]
    reply.send_json(answers[0] if single and call.n == 1 else answers)


def _refuse(error: ApiError, reply: Reply, *, stream: bool) -> None:
    if not stream:
        reply.send_json({"error": {"message": error.message}}, error.status)
        return
    details = {"message": error.message, "type": "invalid_request_error", "code": error.status, "retryable": False}
    reply.start()
    reply.write(b"data: %s\n\n%s" % (_encode({"error": details}), DONE))
    reply.end()


async def _stream(worker: SimulatedWorker, call: Call, single: bool, reply: Reply) -> None:
    """Each event holds the whole text so far; a batch adds the index of the prompt.

    The status line goes out at once, unlike those of the OpenAI routes, which wait for the first event.
    """
    reply.start()
    index_of: dict[str, int] = {}
    with_index = not single or call.n > 1

    def advance(generation: Generation) -> None:
        event = _answer(worker, generation)
        if with_index:
            event["index"] = index_of[generation.rid]
        reply.write(b"data: %s\n\n" % _encode(event))

    await worker.stream(call, reply, index_of.__setitem__, advance)
    reply.write(DONE)
    reply.end()


def _answer(worker: SimulatedWorker, generation: Generation) -> dict[str, Any]:
    """One output of /generate with SGLang's meta_info; its times are there when metrics are on."""
    timed = worker.options.metrics
    cached = generation.cached_tokens
    meta: dict[str, Any] = {
        "id": generation.rid,
        "finish_reason": generation.finish_reason,
        "prompt_tokens": len(generation.prompt),
        "weight_version": "default",
        "num_retractions": generation.retractions,
    }
    if timed:
        if generation.first_token_s is not None:
            epoch_s = _epoch_s()
            meta["forward_entry_time"] = generation.ready_s + generation.queue_s + epoch_s
            meta["prefill_finished_time"] = generation.first_token_s + epoch_s
        meta["queue_time"] = generation.queue_s
    if generation.wanted is not None:
        meta |= Logprobs(worker.tokenizer, generation.wanted, generation).native_fields()
    meta["reasoning_tokens"] = 0
    meta["completion_tokens"] = generation.produced
    meta["cached_tokens"] = cached
    if generation.finished_s is not None:
        meta["weight_versions"] = weight_versions(generation.produced)
    meta["cached_tokens_details"] = {"device": cached, "host": 0} if cached else None
    meta["dp_rank"] = generation.rank if len(worker.ranks) > 1 else None
    if generation.finished_s is not None:
        meta["e2e_latency"] = generation.finished_s - generation.arrived_s
        if timed:
            meta |= _times(generation, generation.finished_s)
    return {"text": generation.text, "output_ids": generation.plan.tokens[: generation.produced], "meta_info": meta}


def _times(generation: Generation, finished_s: float) -> dict[str, float]:
    """When things happened, in seconds since 1970 except where the name says latency."""
    epoch_s = _epoch_s()
    times = {
        "request_received_ts": generation.arrived_s + epoch_s,
        "api_server_dispatch_finish_ts": generation.ready_s + epoch_s,
        "request_finished_ts": finished_s + epoch_s,
    }
    first_s = generation.first_token_s
    if first_s is not None:
        times["first_token_latency"] = first_s - generation.arrived_s
        if generation.produced > 1 and finished_s > first_s:
            times["decode_throughput"] = (generation.produced - 1) / (finished_s - first_s)
    times["response_sent_to_client_ts"] = time.time_ns() / 1e9
    return times


def _epoch_s() -> float:
    """What must be added to the monotonic clock for seconds since 1970."""
    return time.time_ns() / 1e9 - time.monotonic()


def _generate_call(worker: SimulatedWorker, body: GenerateRequest) -> tuple[Call, bool]:
    """What a request asks of the engine, and whether it is one prompt rather than a batch. Raises BadRequest."""
    prompts, single = _prompts(worker, body)
    fields = body.sampling_params
    if isinstance(fields, list):
        if len(fields) != len(prompts):
            raise BadRequest("The length of sampling_params should be equal to the batch size.")
        samplings = [sampling_of_fields(one) for one in fields]
    else:
        samplings = [sampling_of_fields(fields or SamplingFields())] * len(prompts)
    n = samplings[0].n
    if any(sampling.n != n for sampling in samplings):
        raise BadRequest("The parallel_sample_num should be the same for all samples in sample params.")
    call = Call(
        prompts=prompts,
        samplings=samplings,
        namespaces=namespaces_of(body, len(prompts), "", lora=worker.options.lora),
        rids=rids_of(body.rid, len(prompts) * n),
        n=n,
        rank=rank_of_body(body),
        text=body.text is not None,
        wanted=logprobs_of(body, prompts, single=single),
    )
    return call, single


def _prompts(worker: SimulatedWorker, body: GenerateRequest) -> tuple[list[Sequence[int]], bool]:
    if body.text is not None:
        texts = [body.text] if isinstance(body.text, str) else body.text
        if not texts or not all(texts):
            raise BadRequest("texts cannot be empty and tokenizer must be initialized")
        return [worker.tokenizer.encode(text) for text in texts], isinstance(body.text, str)
    if body.input_ids is None:
        raise BadRequest("Either text, input_ids or input_embeds should be provided.")
    if not body.input_ids:
        raise BadRequest("input_ids cannot be empty.")
    ids = [part for part in body.input_ids if isinstance(part, int)]
    if ids:
        return [ids], True
    return [part for part in body.input_ids if isinstance(part, list)], False


async def flush_cache(worker: SimulatedWorker, request: Request, reply: Reply) -> None:
    """GET or POST /flush_cache: refuses while requests run or wait, unless ?timeout= lets it wait for them."""
    given = parse_qs(request.query).get("timeout", ["0"])[0]
    try:
        wait_s = float(given)
    except ValueError:
        wait_s = -1.0
    if not wait_s >= 0:
        raise BadRequest(f"timeout must be a number of seconds, 0 or more, got {given!r}", kind="Bad Request")
    deadline = time.monotonic() + wait_s
    while not all(rank.idle for rank in worker.ranks) and time.monotonic() < deadline:  # noqa: ASYNC110 - as SGLang polls
        await asyncio.sleep(0.05)
    if all(rank.idle for rank in worker.ranks):
        for rank in worker.ranks:
            rank.flush_cache()
        reply.send(
            b"Cache flushed.\nPlease check backend logs for more details. "
            b"(When there are running or waiting requests, the operation will not be performed.)\n",
            content_type=None,
        )
    else:
        reply.send(b"Flush cache failed.\n", 400, None)


async def abort_request(worker: SimulatedWorker, request: Request, reply: Reply) -> None:
    """POST /abort_request: always 200, whether or not there was something to abort."""
    body = decode(AbortRequest, request.body)
    if body.abort_all:
        worker.abort_all()
    else:
        worker.abort(body.rid)
    reply.send(b"", content_type=None)


async def tokenize(worker: SimulatedWorker, request: Request, reply: Reply) -> None:
    """POST /tokenize and /v1/tokenize."""
    body = decode(TokenizeRequest, request.body)
    if (body.prompt is None) == (body.messages is None):
        raise BadRequest("Exactly one of 'prompt' or 'messages' must be provided.", kind="Bad Request")
    tokens: list[int] | list[list[int]]
    count: int | list[int]
    if body.messages is not None:
        tokens = render_chat(
            worker.tokenizer, body.messages, body.tools, continue_final_message=body.continue_final_message
        )
        count = len(tokens)
    elif isinstance(body.prompt, list):
        tokens = [worker.tokenizer.encode(text) for text in body.prompt]
        count = [len(ids) for ids in tokens]
    else:
        tokens = worker.tokenizer.encode(body.prompt or "")
        count = len(tokens)
    reply.send_json({"tokens": tokens, "count": count, "max_model_len": worker.options.context_length})


async def detokenize(worker: SimulatedWorker, request: Request, reply: Reply) -> None:
    """POST /detokenize and /v1/detokenize."""
    body = decode(DetokenizeRequest, request.body)
    lists = [part for part in body.tokens if isinstance(part, list)]
    plain = [part for part in body.tokens if isinstance(part, int)]
    if lists and plain:
        raise BadRequest("Invalid input: 'tokens' must be a list of integers.")
    try:
        text: str | list[str]
        if lists:
            text = [worker.tokenizer.decode(ids, skip_special=body.skip_special_tokens) for ids in lists]
        else:
            text = worker.tokenizer.decode(plain, skip_special=body.skip_special_tokens)
    except ValueError as error:
        raise BadRequest(f"Error decoding tokens: {error}.", kind="DecodeError") from error
    reply.send_json({"text": text})
