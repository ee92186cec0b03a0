"""Token counts out of a worker's answer, in every dialect that SGLang speaks. Pure; reads bytes, keeps nothing else.

OpenAI answers and the last chunks of their streams carry `usage`; `/generate` carries `meta_info`; Anthropic's
messages spread it over `message_start` and `message_delta`. Called by request.relay.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from router.compiled import mypyc_attr
from router.request.usage_shapes import Answer, UsageFields, decode_batch, decode_chunk, decode_made, decode_one


@mypyc_attr(acyclic=True)
@dataclass(init=False, slots=True, kw_only=True)
class Usage:
    """What the worker reported; None where it said nothing.

    `cached_tokens` is 0 when a worker that reports details reports none, and None when it does not say.
    """

    prompt_tokens: Final[int | None]
    cached_tokens: Final[int | None]
    completion_tokens: Final[int | None]

    def __init__(
        self,
        *,
        prompt_tokens: int | None = None,
        cached_tokens: int | None = None,
        completion_tokens: int | None = None,
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self.cached_tokens = cached_tokens
        self.completion_tokens = completion_tokens


def usage_of_body(body: bytes) -> Usage:
    """Usage of a whole (not streamed) JSON answer; a `/generate` batch is summed. Empty when there is none."""
    try:
        if body[:1] == b"[":
            return _sum(_of_answer(answer) for answer in decode_batch(body))
        return _of_answer(decode_one(body))
    except (msgspec.DecodeError, UnicodeDecodeError):  # covers ValidationError: not the shape we know
        return Usage()


def usage_of_events(events: Iterable[bytes]) -> Usage:
    """Usage of a stream, given some of its events, oldest first; later figures win, missing ones do not erase."""
    known = Usage()
    for event in events:
        for line in event.split(b"\n"):
            if line.startswith(b"data:") and (b'"usage"' in line or b'"meta_info"' in line):
                known = _merge(known, usage_of_body(line[5:].strip()))
    return known


def response_id_of(data: bytes) -> str | None:
    """The id of a stored response, out of a whole answer or the first event of its stream; None where there is none."""
    body = data
    if not data.startswith(b"{"):
        body = next((line[5:].strip() for line in data.split(b"\n") if line.startswith(b"data:")), b"")
    try:
        made = decode_made(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return made.response.id if made.response is not None else made.id


def is_usage_chunk(event: bytes) -> bool:
    """Whether this event of an OpenAI stream is the one that `stream_options.include_usage` adds."""
    if not event.startswith(b"data:"):
        return False
    try:
        return not decode_chunk(event[5:]).choices
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def _of_answer(answer: Answer) -> Usage:
    meta = answer.meta_info
    if meta is not None:
        return Usage(
            prompt_tokens=meta.prompt_tokens,
            cached_tokens=meta.cached_tokens,
            completion_tokens=meta.completion_tokens,
        )
    fields = answer.usage
    if fields is None:
        nested = answer.response or answer.message
        fields = None if nested is None else nested.usage
    return Usage() if fields is None else _of_fields(fields)


def _of_fields(fields: UsageFields) -> Usage:
    """OpenAI's names, and where there are none, those of `/v1/responses` and Anthropic."""
    details = fields.prompt_tokens_details or fields.input_tokens_details
    prompt, completion = fields.prompt_tokens, fields.completion_tokens
    cached = None if details is None else details.cached_tokens
    if prompt is None:
        prompt, read = fields.input_tokens, fields.cache_read_input_tokens
        if prompt is not None and read is not None:
            prompt += read  # Anthropic's input_tokens leaves out what was cached
    if cached is None:
        cached = fields.cache_read_input_tokens
    if completion is None:
        completion = fields.output_tokens
    return Usage(prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion)


def _first(value: int | None, other: int | None) -> int | None:
    return other if value is None else value


def _merge(old: Usage, new: Usage) -> Usage:
    return Usage(
        prompt_tokens=_first(new.prompt_tokens, old.prompt_tokens),
        cached_tokens=_first(new.cached_tokens, old.cached_tokens),
        completion_tokens=_first(new.completion_tokens, old.completion_tokens),
    )


def _sum(parts: Iterable[Usage]) -> Usage:
    usages = list(parts)

    def total(counts: list[int | None]) -> int | None:
        known = [count for count in counts if count is not None]
        return sum(known) if known else None

    return Usage(
        prompt_tokens=total([usage.prompt_tokens for usage in usages]),
        cached_tokens=total([usage.cached_tokens for usage in usages]),
        completion_tokens=total([usage.completion_tokens for usage in usages]),
    )
