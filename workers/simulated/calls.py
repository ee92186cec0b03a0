"""From request fields to what the worker runs: sampling parameters checked as SGLang checks them, namespaces, ranks.

Raises BadRequest with SGLang's sentences. Called by the API modules. Not here: bodies of answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from workers.simulated.errors import BadRequest
from workers.simulated.generation import Wanted
from workers.simulated.schemas import Common, GenerateRequest, SamplingFields
from workers.simulated.writer import Sampling

MAX_STOP_STRINGS = 32  # SGLang 0.5.21

T = TypeVar("T")
Namespace = tuple[str | None, str | None, str | None]
"""LoRA adapter, extra_key, cache_salt: requests that differ in one of them never share cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What one HTTP request asks of the engine: `prompts`, each to be answered `n` times.

    `fixed`, where given, is the text of every answer (forced tool calls). `rank` is None where the server may choose.
    `text`: whether the server must make the tokens from text. `wanted`: log-probabilities, of each prompt or of none.
    """

    prompts: Sequence[Sequence[int]]
    samplings: Sequence[Sampling]
    namespaces: Sequence[Namespace]
    rids: Sequence[str] | None
    n: int
    rank: int | None
    fixed: str | None = None
    text: bool = True
    wanted: Sequence[Wanted | None] = ()


def sampling_of(request: Common, *, max_tokens: int | None, json_schema: dict[str, Any] | None = None) -> Sampling:
    """Sampling parameters of an OpenAI request. Raises BadRequest."""
    fields = SamplingFields(
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        frequency_penalty=request.frequency_penalty,
        presence_penalty=request.presence_penalty,
        repetition_penalty=request.repetition_penalty,
        max_new_tokens=max_tokens,
        min_new_tokens=request.min_tokens,
        stop=request.stop,
        stop_token_ids=request.stop_token_ids,
        ignore_eos=request.ignore_eos,
        no_stop_trim=request.no_stop_trim,
        n=request.n,
        sampling_seed=request.seed,
        regex=request.regex,
    )
    return _sampling(fields, json_schema or _schema_of_format(request))


def sampling_of_fields(fields: SamplingFields) -> Sampling:
    """Sampling parameters of /generate; null means the default there. Raises BadRequest."""
    return _sampling(fields, parse_schema(fields.json_schema))


def parse_schema(text: str | None) -> dict[str, Any] | None:
    """A JSON schema given as text. Raises BadRequest."""
    if not text:
        return None
    try:
        schema = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise BadRequest(f"Failed to compile json grammar: Invalid JSON schema: {error}") from error
    return schema if isinstance(schema, dict) else {}


def _schema_of_format(request: Common) -> dict[str, Any] | None:
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_schema":
        if wanted.json_schema is None or wanted.json_schema.schema is None:
            raise BadRequest("schema_ is required for json_schema response format request.")
        return wanted.json_schema.schema
    return {"type": "object"} if wanted.type == "json_object" else None


def _sampling(fields: SamplingFields, json_schema: dict[str, Any] | None) -> Sampling:
    n = 1 if fields.n is None else fields.n
    least, most = fields.min_new_tokens or 0, fields.max_new_tokens
    stops = (fields.stop,) if isinstance(fields.stop, str) else tuple(fields.stop or ())
    _check_shape_of_distribution(fields)
    checks = (
        (least < 0, f"min_new_tokens must be in [0, max_new_tokens], got {least}."),
        (most is not None and most < 0, f"max_new_tokens must be at least 0, got {most}."),
        (most is not None and least > most, f"min_new_tokens must be in [0, max_new_tokens({most})], got {least}."),
        (len(stops) > MAX_STOP_STRINGS, f"at most {MAX_STOP_STRINGS} stop strings are allowed, got {len(stops)}"),
        (
            json_schema is not None and bool(fields.regex),
            "Only one of json_schema, regex, ebnf, or structural_tag can be set.",
        ),
    )
    _refuse_first(checks)
    if n < 1:
        raise BadRequest(f"n must be at least 1, got {n}.", kind="BadRequest")
    return Sampling(
        max_new_tokens=most,
        min_new_tokens=least,
        stop=stops,
        stop_token_ids=frozenset(() if fields.ignore_eos else fields.stop_token_ids or ()),
        ignore_eos=bool(fields.ignore_eos),
        no_stop_trim=bool(fields.no_stop_trim),
        n=n,
        seed=fields.sampling_seed,
        json_schema=json_schema,
        regex=fields.regex or None,
    )


def _check_shape_of_distribution(fields: SamplingFields) -> None:
    """Refuses what SGLang's SamplingParams.verify refuses, in its words, of the values that change no text here."""
    top_p, top_k, penalty = fields.top_p, fields.top_k, fields.repetition_penalty
    checks = (
        (
            _outside(fields.temperature, 0, math.inf),
            f"temperature must be a non-negative finite number, got {fields.temperature}.",
        ),
        (top_p is not None and not 0 < top_p <= 1, f"top_p must be in (0, 1], got {top_p}."),
        (_outside(fields.min_p, 0, 1), f"min_p must be in [0, 1], got {fields.min_p}."),
        (top_k is not None and top_k < 1 and top_k != -1, f"top_k must be -1 (disable) or at least 1, got {top_k}."),
        (
            _outside(fields.frequency_penalty, -2, 2),
            f"frequency_penalty must be in [-2, 2], got {fields.frequency_penalty}.",
        ),
        (
            _outside(fields.presence_penalty, -2, 2),
            f"presence_penalty must be in [-2, 2], got {fields.presence_penalty}.",
        ),
        (
            penalty is not None and not 0 < penalty <= 2,
            f"repetition_penalty must be in (0, 2] (1.0 = no penalty), got {penalty}.",
        ),
    )
    _refuse_first(checks)


def _refuse_first(checks: Iterable[tuple[bool, str]]) -> None:
    for refused, message in checks:
        if refused:
            raise BadRequest(message)


def _outside(value: float | None, low: float, high: float) -> bool:
    return value is not None and not (low <= value <= high and math.isfinite(value))


def namespaces_of(request: Common | GenerateRequest, count: int, model: str, *, lora: bool) -> list[Namespace]:
    """The cache namespace of each of `count` prompts. `model` may name an adapter, as in base-model:adapter.

    Raises BadRequest where an adapter is named and the worker has not `lora` switched on.
    """
    adapter = model.partition(":")[2].strip() or None
    wanted = adapter or _nth(request.lora_path, 0)
    if wanted and not lora:
        raise BadRequest(
            f"LoRA adapter '{wanted}' was requested, but LoRA is not enabled. Please launch the server with "
            "--enable-lora flag and preload adapters using --lora-paths or /load_lora_adapter endpoint."
        )
    return [
        (
            adapter or _nth(request.lora_path, index),
            _nth(request.extra_key, index) or None,
            _nth(request.cache_salt, index) or None,
        )
        for index in range(count)
    ]


def logprobs_of(request: GenerateRequest, prompts: Sequence[Sequence[int]], *, single: bool) -> list[Wanted | None]:
    """Which log-probabilities a /generate request wants of each prompt. Raises BadRequest.

    Lists for a single prompt and starts below -1 end the scheduler of SGLang 0.5.21; they are refused here.
    """
    starts, tops = request.logprob_start_len, request.top_logprobs_num
    for value in (request.return_logprob, starts, tops):
        if isinstance(value, list) and (single or len(value) != len(prompts)):
            raise BadRequest("What is a list must be one for each prompt of a batch.")
    ids = request.token_ids_logprob or []
    flat = [one for one in ids if isinstance(one, int)]  # for all prompts; else a list for each
    lists = [part for part in ids if isinstance(part, list)]
    if (lists and flat) or (lists and (single or len(lists) != len(prompts))):
        raise BadRequest("token_ids_logprob must be a flat list of integers.")
    wanted: list[Wanted | None] = []
    for index, prompt in enumerate(prompts):
        if not _of_prompt(request.return_logprob, index):
            wanted.append(None)
            continue
        start = _of_prompt(starts, index)
        start = -1 if start is None else start
        if start < -1:
            raise BadRequest(f"logprob_start_len must be -1 or more, got {start}.")
        if start > len(prompt):
            raise BadRequest(
                f"req.logprob_start_len={start} is higher than the number of input tokens "
                f"len(req.origin_input_ids)={len(prompt)}. Please use a smaller logprob_start_len."
            )
        own = lists[index] if lists else flat
        wanted.append(
            Wanted(
                start=None if start == -1 else start,
                top=max(_of_prompt(tops, index) or 0, 0),
                token_ids=tuple(own) if own else None,
                text=request.return_text_in_logprobs,
            )
        )
    return wanted


def _of_prompt(value: T | list[T] | None, index: int) -> T | None:
    """What a field says of one prompt of a batch: a list has a value for each."""
    return value[index] if isinstance(value, list) else value


def _nth(value: str | Sequence[str | None] | None, index: int) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return value[index] if index < len(value) else None


def rids_of(rid: str | list[str] | None, count: int) -> list[str] | None:
    """Request ids for `count` generations; a string given for several becomes a prefix. Raises BadRequest."""
    if rid is None:
        return None
    if isinstance(rid, str):
        return [rid] if count == 1 else [f"{rid}_{index}" for index in range(count)]
    if len(rid) != count:
        raise BadRequest("The specified rids length mismatch with the batch_size for batch processing.")
    if len(set(rid)) != len(rid):
        raise BadRequest(f"Duplicate request IDs detected within the request: {sorted(set(rid))}")
    return rid


def rank_of_body(request: Common | GenerateRequest) -> int | None:
    """The DP rank that the body asks for; `data_parallel_rank` is the deprecated spelling."""
    return request.data_parallel_rank if request.routed_dp_rank is None else request.routed_dp_rank


def rank_of(request: Common, headers: Mapping[str, str]) -> int | None:
    """The DP rank asked for; on the OpenAI routes the header wins over the body. Raises BadRequest."""
    header = headers.get("x-data-parallel-rank")
    if header is None:
        return rank_of_body(request)
    try:
        return int(header)
    except ValueError as error:
        raise BadRequest(
            f"Invalid X-Data-Parallel-Rank header: must be an integer, got '{header}'", kind="400"
        ) from error
