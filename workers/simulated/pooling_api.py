"""/v1/embeddings, /v1/rerank, /v1/score and /v1/classify: prompts that are read and answered with numbers.

One simulated worker answers these beside the generating routes; a real server does one or the other (--is-embedding).
Numbers are derived from the text, so equal inputs give equal answers and nothing else is true of them. The reading
goes through the engine like any prompt. Called by routes.py.
"""

from __future__ import annotations

import base64
import math
import random
import struct
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
import xxhash

from workers.simulated.calls import Call
from workers.simulated.errors import BadRequest
from workers.simulated.generation import Generation
from workers.simulated.openai_stream import unix_time, usage
from workers.simulated.reply import Reply, Request
from workers.simulated.schemas import ClassifyRequest, EmbeddingRequest, RerankRequest, ScoreRequest, decode
from workers.simulated.worker import NOTHING, SimulatedWorker

EMBEDDING_DIMENSIONS = 256
LABELS = ("LABEL_0", "LABEL_1")


async def embeddings(worker: SimulatedWorker, request: Request, reply: Reply) -> None:
    """POST /v1/embeddings: unit vectors, as floats or base64 of little-endian float32."""
    body = decode(EmbeddingRequest, request.body)
    if body.dimensions is not None and not 1 <= body.dimensions <= EMBEDDING_DIMENSIONS:
        raise BadRequest(
            "Requested dimensions must be greater than 0"
            if body.dimensions < 1
            else f"Provided dimensions are greater than max embedding dimension: {EMBEDDING_DIMENSIONS}"
        )
    prompts = _inputs(worker, body.input)
    read = await _read(worker, prompts, reply)
    size = body.dimensions or EMBEDDING_DIMENSIONS
    data = []
    for index, prompt in enumerate(prompts):
        vector = _vector(prompt, size)
        packed = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode()
        data.append(
            {"embedding": packed if body.encoding_format == "base64" else vector, "index": index, "object": "embedding"}
        )
    answer = {"data": data, "model": worker.options.model, "object": "list", "usage": _usage(read)}
    reply.send_json(answer)


async def rerank(worker: SimulatedWorker, request: Request, reply: Reply) -> None:
    """POST /v1/rerank: documents by falling score, as a bare list."""
    body = decode(RerankRequest, request.body)
    if body.top_n is not None and body.top_n < 1:
        raise BadRequest("Value error, parameter top_n should be larger than 0.", kind="Bad Request")
    query = _text(body.query)
    documents = [_text(document) for document in body.documents]
    if not query.strip() or not documents:
        raise BadRequest("Query cannot be empty" if not query.strip() else "Documents cannot be empty")
    if not all(document.strip() for document in documents):
        raise BadRequest("Each document must be a non-empty string")
    prompts = [worker.tokenizer.encode(f"{query}<|im_end|>\n{document}") for document in documents]
    read = await _read(worker, prompts, reply)
    rows: list[dict[str, Any]] = []
    for index, (prompt, generation) in enumerate(zip(prompts, read, strict=True)):
        row: dict[str, Any] = {"score": _fraction(prompt)}
        if body.return_documents:
            row["document"] = documents[index]
        meta = {"id": generation.rid, "finish_reason": {"type": "length", "length": 0}, "prompt_tokens": len(prompt)}
        rows.append({**row, "index": index, "meta_info": meta})
    rows.sort(key=lambda row: -float(row["score"]))
    reply.send_json(rows[: body.top_n])


async def score(worker: SimulatedWorker, request: Request, reply: Reply) -> None:
    """POST /v1/score: for each item one number per label token."""
    body = decode(ScoreRequest, request.body)
    if not body.label_token_ids:
        raise BadRequest("label_token_ids is required for generation (CausalLM) models.")
    if body.query is None or body.items is None:
        raise BadRequest("Both query and items must be provided.")
    items = [body.items] if isinstance(body.items, str) else body.items
    query = worker.tokenizer.encode(body.query) if isinstance(body.query, str) else body.query
    prompts: list[list[int]] = []
    for item in items:
        ids = worker.tokenizer.encode(item) if isinstance(item, str) else item
        prompts.append([*ids, *query] if body.item_first else [*query, *ids])
    read = await _read(worker, prompts, reply)
    scores = [_scores(prompt, body.label_token_ids, softmax=body.apply_softmax) for prompt in prompts]
    reply.send_json(
        {
            "scores": scores,
            "pooled_hidden_states": None,
            "token_logprobs": None,
            "model": body.model,
            "usage": _usage(read),
            "object": "scoring",
        }
    )


async def classify(worker: SimulatedWorker, request: Request, reply: Reply) -> None:
    """POST /v1/classify: two labels."""
    body = decode(ClassifyRequest, request.body)
    prompts = _inputs(worker, body.input)
    read = await _read(worker, prompts, reply)
    data = []
    for index, prompt in enumerate(prompts):
        first = _fraction(prompt)
        probabilities = [first, 1.0 - first]
        label = LABELS[0 if first >= 0.5 else 1]
        data.append({"index": index, "label": label, "probs": probabilities, "num_classes": len(LABELS)})
    answer = {
        "id": f"classify-{uuid.uuid4().hex}",
        "object": "list",
        "created": unix_time(),
        "model": body.model,
        "data": data,
        "usage": _usage(read),
    }
    reply.send_json(answer)


async def _read(worker: SimulatedWorker, prompts: Sequence[Sequence[int]], reply: Reply) -> list[Generation]:
    """Lets the engine read the prompts and answer nothing."""
    nowhere = (None, None, None)
    call = Call(
        prompts=prompts,
        samplings=[NOTHING] * len(prompts),
        namespaces=[nowhere] * len(prompts),
        rids=None,
        n=1,
        rank=None,
    )
    return await worker.complete(call, reply)


def _inputs(worker: SimulatedWorker, given: str | Sequence[object]) -> list[list[int]]:
    """Every form that `input` may take, as token ids. Raises BadRequest when there is nothing to read."""
    if isinstance(given, str):
        if not given.strip():
            raise BadRequest("Input cannot be empty or whitespace only")
        return [worker.tokenizer.encode(given)]
    if not given:
        raise BadRequest("Input cannot be empty")
    ids = [part for part in given if isinstance(part, int)]
    if ids:
        if len(ids) != len(given):
            raise BadRequest("All items in input list must be of the same type")
        return [ids]
    prompts: list[list[int]] = []
    for part in given:
        if isinstance(part, list):
            prompts.append(part)
        else:
            text = part if isinstance(part, str) else _encode(part).decode()
            if not text.strip():
                raise BadRequest("Input cannot be empty or whitespace only")
            prompts.append(worker.tokenizer.encode(text))
    return prompts


def _text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else _encode(content).decode()


def _usage(read: Sequence[Generation]) -> dict[str, Any]:
    return usage(sum(len(generation.prompt) for generation in read), 0, 0)


def _digest(prompt: Sequence[int]) -> int:
    return xxhash.xxh3_64_intdigest(struct.pack(f"<{len(prompt)}q", *prompt))


def _fraction(prompt: Sequence[int]) -> float:
    return _digest(prompt) / 2.0**64


def _vector(prompt: Sequence[int], size: int) -> list[float]:
    rng = random.Random(_digest(prompt))
    values = [rng.gauss(0.0, 1.0) for _ in range(size)]
    norm = math.sqrt(sum(value * value for value in values)) or 1.0
    return [value / norm for value in values]


def _scores(prompt: Sequence[int], labels: Sequence[int], *, softmax: bool) -> list[float]:
    rng = random.Random(_digest(prompt))
    logits = [rng.gauss(0.0, 2.0) for _ in labels]
    weights = [math.exp(logit) for logit in logits]
    total = sum(weights)
    return [weight / total for weight in weights] if softmax else [-8.0 + logit for logit in logits]


_encode = msgspec.json.Encoder().encode
