"""Where a worker's answer tells usage, as msgspec reads it: everything else in the answer is skipped.

Apart from usage because that is compiled, and a record of msgspec cannot be (CONTRIBUTING.md). Called by usage only.
"""

from __future__ import annotations

import msgspec


class Details(msgspec.Struct):
    cached_tokens: int | None = None


class UsageFields(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    prompt_tokens_details: Details | None = None
    input_tokens_details: Details | None = None


class MetaInfo(msgspec.Struct):
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None


class Nested(msgspec.Struct):
    id: str | None = None
    usage: UsageFields | None = None


class Made(msgspec.Struct):
    """A response object, or the event that holds one."""

    id: str | None = None
    response: Nested | None = None


class Chunk(msgspec.Struct):
    """A chunk that holds nothing but usage: no choices, and a usage that is not null."""

    choices: list[msgspec.Raw]
    usage: UsageFields


class Answer(msgspec.Struct):
    usage: UsageFields | None = None
    meta_info: MetaInfo | None = None
    response: Nested | None = None  # /v1/responses events
    message: Nested | None = None  # /v1/messages message_start


decode_chunk = msgspec.json.Decoder(Chunk).decode
decode_made = msgspec.json.Decoder(Made).decode
decode_one = msgspec.json.Decoder(Answer).decode
decode_batch = msgspec.json.Decoder(list[Answer]).decode
