"""A parsed request to its prompt key: what of the prompt a KV cache could reuse, as chained block hashes.

SGLang caches the *rendered* prompt. We do not render (that needs the model's template and tokenizer); we write the
parts that a template renders, in the order in which templates render them, into one canonical byte string:

    tools  FF role FE content FE name FE tool calls ...  FF role FE content ...

Text is UTF-8, in which bytes F8 to FF never occur, so they separate without ambiguity: two canonical strings agree
exactly as far as tools, roles and contents agree, and JSON spelling (key order, spaces, escapes) is gone. The
namespace (model, LoRA, cache salt, extra key) seeds the hashes, because SGLang never shares cache across it.
Pure. Called by request.dispatch.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
from xxhash import xxh3_128_hexdigest

from router.compiled import interpreted
from router.errors import InvalidBody
from router.knob import knob, require
from router.prefix.block_hash import chain, namespace_seed
from router.request.parsed_request import Body, ParsedRequest
from router.types import PromptKey

MESSAGE, FIELD, PART, ITEM = b"\xff", b"\xfe", b"\xfd", b"\xfc"
TOKEN_BYTES = 4
"""A token id is written as 4 bytes, which is also about how many bytes of English text one token stands for."""
MEDIA_TOKENS = 256
"""What an image, video or audio part counts as; Qwen2-VL and LLaVA spend 256 to 1,200 tokens on a picture."""

_dump = msgspec.json.Encoder(order="deterministic").encode


@interpreted
@dataclass(frozen=True, slots=True, kw_only=True)
class PromptKeyConfig:
    block_bytes: int = knob(256, "bytes of a prompt's first blocks; deeper ones are multiples of it; about 64 tokens")
    bytes_per_token: float = knob(4.0, "bytes of prompt text per token, before it is learned from workers' usage")

    def __post_init__(self) -> None:
        require(16 <= self.block_bytes <= 65_536, "must be between 16 and 65,536")
        require(0.5 <= self.bytes_per_token <= 64, "must be between 0.5 and 64")


def prompt_key(parsed: ParsedRequest, config: PromptKeyConfig) -> PromptKey:
    """The key of one request. O(size of the prompt). Raises InvalidBody for nesting that `parse` just let through."""
    try:
        kind, data = CANONICAL[parsed.endpoint](parsed.body)
    except RecursionError:
        raise InvalidBody("The body is nested too deeply.") from None
    if _SCOPE_FIELDS.isdisjoint(parsed.body):
        seed = _seed_of_model(kind, parsed.model)
    else:
        seed = namespace_seed(_namespace(kind, parsed.model, parsed.body))
    return PromptKey(
        blocks=chain(data, config.block_bytes, seed),
        unit_tokens=config.block_bytes / config.bytes_per_token,
        prompt_tokens=len(data) / config.bytes_per_token,
    )


_SCOPE_FIELDS = frozenset({"lora_path", "cache_salt", "extra_key"})


@lru_cache(maxsize=256)
def _seed_of_model(kind: bytes, model: str | None) -> int:
    return namespace_seed(_namespace(kind, model, {}))


def _namespace(kind: bytes, model: str | None, body: Body) -> bytes:
    scope = [model, body.get("lora_path"), body.get("cache_salt"), body.get("extra_key")]
    return kind + _dump(scope)


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def _chat(body: Body) -> tuple[bytes, bytes]:
    tools = body.get("tools") if body.get("tool_choice") != "none" else None
    return b"chat", _messages([_tools(tools)], body["messages"])


def _anthropic(body: Body) -> tuple[bytes, bytes]:
    system = body.get("system")
    head = MESSAGE + b"system" + FIELD + _content(system) if system else b""
    return b"chat", _messages([_tools(body.get("tools")), head], body["messages"])


def _responses(body: Body) -> tuple[bytes, bytes]:
    instructions = body.get("instructions")
    head = MESSAGE + b"system" + FIELD + _content(instructions) if instructions else b""
    given = body["input"]
    turns = [{"role": "user", "content": given}] if isinstance(given, str) else given
    return b"chat", _messages([_tools(body.get("tools")), head], turns)


def _completion(body: Body) -> tuple[bytes, bytes]:
    return _prompt(body["prompt"])


def _generate(body: Body) -> tuple[bytes, bytes]:
    for name in ("text", "input_ids", "input_embeds"):
        if body.get(name) is not None:
            kind, data = _prompt(body[name])
            media = [body[name] for name in ("image_data", "video_data", "audio_data") if body.get(name)]
            return kind, b"".join(map(_media, media)) + data
    return b"text", b""


def _embedding(body: Body) -> tuple[bytes, bytes]:
    return _prompt(body["input"])


def _pairs(body: Body) -> tuple[bytes, bytes]:
    query = body.get("query") or body.get("text_1")
    others = body.get("documents") or body.get("items") or body.get("text_2")
    return b"text", _prompt(query)[1] + ITEM + _prompt(others)[1]


CANONICAL: dict[str, Callable[[Body], tuple[bytes, bytes]]] = {
    "/v1/chat/completions": _chat,
    "/v1/messages": _anthropic,
    "/v1/responses": _responses,
    "/v1/completions": _completion,
    "/generate": _generate,
    "/encode": _generate,
    "/classify": _generate,
    "/v1/classify": _embedding,
    "/v1/embeddings": _embedding,
    "/v1/rerank": _pairs,
    "/v1/score": _pairs,
}
"""For each endpoint: body to (kind of prompt, canonical bytes). Kinds never share cache entries here."""


def _prompt(value: Any) -> tuple[bytes, bytes]:
    """A plain prompt: text, token ids, or a batch of either (its prompts one after the other)."""
    if isinstance(value, str):
        return b"text", _text(value)
    if not isinstance(value, list) or not value:
        return b"text", _dump(value)
    if all(type(item) is int for item in value):
        return b"tokens", _token_ids(value)
    parts = [_prompt(item) for item in value]
    return parts[0][0], ITEM.join(data for _, data in parts)


def _token_ids(ids: Sequence[int]) -> bytes:
    try:
        return array("I", ids).tobytes()
    except (OverflowError, TypeError):  # negative or enormous: the worker will refuse it
        return _dump(ids)


def _tools(tools: Any) -> bytes:
    if not tools:
        return b""
    items = tools if isinstance(tools, list) else [tools]
    return b"".join(ITEM + _dump(tool) for tool in items)


def _messages(pieces: list[bytes], messages: list[Any]) -> bytes:
    """Behind what is in `pieces` already."""
    for message in messages:
        if not isinstance(message, dict):
            pieces += (MESSAGE, _content(message))
            continue
        role, content = message.get("role"), message.get("content")
        head = _HEADS.get(role) if type(role) is str else None
        text = content.encode("utf-8", "surrogatepass") if type(content) is str else _content(content)
        pieces += (head or _head(message), text)
        if len(message) > 2 or "content" not in message:
            pieces += _extras(message)
    return b"".join(pieces)


def _head(message: dict[str, Any]) -> bytes:
    return MESSAGE + _text(str(message.get("role") or message.get("type") or "")) + FIELD


_HEADS = {role: _head({"role": role}) for role in ("system", "developer", "user", "assistant", "tool")}

_EXTRAS = ("name", "reasoning_content", "tool_calls", "tool_call_id", "call_id", "arguments", "output")
"""Other message fields that chat templates render, in the order in which they are written here."""


def _extras(message: dict[str, Any]) -> list[bytes]:
    pieces: list[bytes] = []
    for name in _EXTRAS:
        value = message.get(name)
        if value is not None and value != []:
            pieces += (FIELD, name.encode(), FIELD, _text(value) if isinstance(value, str) else _dump(value))
    return pieces


def _content(content: Any) -> bytes:
    """Message content: a string, null, or a list of parts. One text part equals the plain string."""
    if content is None:
        return b""
    if isinstance(content, str):
        return _text(content)
    if not isinstance(content, list):
        return _dump(content)
    return PART.join(_part(part) for part in content)


def _part(part: Any) -> bytes:
    if isinstance(part, str):
        return _text(part)
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return _text(part["text"])
    return _media(part)


def _media(part: Any) -> bytes:
    """A picture, video, sound or file by its digest, repeated to weigh what it costs rather than its size in bytes."""
    digest = xxh3_128_hexdigest(_dump(part)).encode()
    return digest * (MEDIA_TOKENS * TOKEN_BYTES // len(digest))
