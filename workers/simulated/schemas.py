"""The request bodies of the routes, as far as the simulated worker reads them. Unknown fields pass, as in SGLang.

Decoding is lenient where pydantic is (numbers given as strings). `decode` raises InvalidBody.
Called by the API modules. Not here: what a field means.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, TypeVar

import msgspec

from workers.simulated.errors import InvalidBody

DEFAULT_MODEL = "default"  # SGLang's: answers echo the model of the request, and this where it names none

T = TypeVar("T", bound=msgspec.Struct)


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class JsonSchemaFormat(msgspec.Struct):
    name: str | None = None
    schema: dict[str, Any] | None = None


class ResponseFormat(msgspec.Struct):
    type: Literal["text", "json_object", "json_schema", "structural_tag"]
    json_schema: JsonSchemaFormat | None = None


class Common(msgspec.Struct, kw_only=True):
    """Fields that the generating OpenAI routes share."""

    model: str = DEFAULT_MODEL
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = 1
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    no_stop_trim: bool = False
    regex: str | None = None
    response_format: ResponseFormat | None = None
    lora_path: str | list[str | None] | None = None
    rid: str | list[str] | None = None
    extra_key: str | list[str] | None = None
    cache_salt: str | list[str] | None = None
    priority: int | None = None
    routed_dp_rank: int | None = None
    data_parallel_rank: int | None = None
    return_cached_tokens_details: bool = False


class ChatRequest(Common, kw_only=True):
    messages: list[dict[str, Any]]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = None
    continue_final_message: bool = False
    input_ids: list[int] | None = None


class CompletionRequest(Common, kw_only=True):
    prompt: str | list[str | int | list[int]]
    max_tokens: int = 16
    echo: bool = False
    logprobs: int | None = None
    json_schema: str | None = None


class SamplingFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`sampling_params` of /generate. The default of max_new_tokens is SGLang's; those of type Any change nothing here.

    The one object of a request whose names are checked: the real server fails with 500 on an unknown one.
    """

    max_new_tokens: int | None = 128
    min_new_tokens: int | None = 0
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    n: int | None = 1
    ignore_eos: bool | None = False
    no_stop_trim: bool | None = False
    regex: str | None = None
    json_schema: str | None = None
    sampling_seed: int | None = None
    beam_width: Any = None
    custom_params: Any = None
    ebnf: Any = None
    ebnf_full_assistant: Any = None
    logit_bias: Any = None
    skip_special_tokens: Any = None
    spaces_between_special_tokens: Any = None
    stop_regex: Any = None
    stream_interval: Any = None
    structural_tag: Any = None


class GenerateRequest(msgspec.Struct, kw_only=True):
    text: str | list[str] | None = None
    input_ids: list[int | list[int]] | None = None
    sampling_params: SamplingFields | list[SamplingFields] | None = None
    stream: bool = False
    return_logprob: bool | list[bool] | None = False
    logprob_start_len: int | list[int] | None = None
    top_logprobs_num: int | list[int] | None = None
    token_ids_logprob: list[int | list[int]] | None = None
    return_text_in_logprobs: bool = False
    rid: str | list[str] | None = None
    lora_path: str | list[str | None] | None = None
    extra_key: str | list[str] | None = None
    cache_salt: str | list[str] | None = None
    routed_dp_rank: int | None = None
    data_parallel_rank: int | None = None
    image_data: Any = None


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    input: str | list[str | int | list[int] | dict[str, Any]]
    model: str = DEFAULT_MODEL
    encoding_format: str = "float"
    dimensions: int | None = None


class RerankRequest(msgspec.Struct, kw_only=True):
    query: str | list[dict[str, Any]]
    documents: list[str | list[dict[str, Any]]]
    top_n: int | None = None
    return_documents: bool = True


class ScoreRequest(msgspec.Struct, kw_only=True):
    query: str | list[int] | None = None
    items: str | list[str | list[int]] | None = None
    label_token_ids: list[int] | None = None
    apply_softmax: bool = False
    item_first: bool = False
    model: str = DEFAULT_MODEL


class ClassifyRequest(msgspec.Struct, kw_only=True):
    input: str | list[str | int]
    model: str = DEFAULT_MODEL


class TokenizeRequest(msgspec.Struct, kw_only=True):
    model: str = DEFAULT_MODEL
    prompt: str | list[str] | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    continue_final_message: bool = False


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    model: str = DEFAULT_MODEL
    tokens: list[int | list[int]]
    skip_special_tokens: bool = True


class AbortRequest(msgspec.Struct, kw_only=True):
    rid: str = ""
    abort_all: bool = False


@functools.cache
def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(kind, strict=False)


def decode(kind: type[T], body: bytes) -> T:
    """`body` as a `kind`. Raises InvalidBody."""
    try:
        decoded: T = _decoder(kind).decode(body)
    except msgspec.ValidationError as error:
        raise InvalidBody(_one_error("value_error", "('body',)", error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidBody(_one_error("json_invalid", "('body', 0)", error)) from error
    return decoded


def _one_error(kind: str, place: str, error: Exception) -> str:
    return f"1 validation error:\n  {{'type': '{kind}', 'loc': {place}, 'msg': {str(error)!r}}}"
