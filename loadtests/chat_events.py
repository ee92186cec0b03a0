"""The parts of OpenAI's chat answers that a load test reads: text, usage, errors. Everything else is skipped.

Typed records for msgspec, and what they say. Called by stream_client.py.
"""

from __future__ import annotations

import msgspec

_NOTHING = msgspec.Raw(b"null")


class UsageDetails(msgspec.Struct):
    """SGLang fills it with --enable-cache-report, and leaves it out where nothing was cached."""

    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """Token counts as the worker reports them."""

    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: UsageDetails | None = None


class Said(msgspec.Struct):
    """A streamed delta or a whole message."""

    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class Choice(msgspec.Struct):
    """One of the answers; a stream has `delta`, a whole answer `message`."""

    delta: Said | None = None
    message: Said | None = None

    @property
    def said(self) -> Said | None:
        return self.delta or self.message


class Chunk(msgspec.Struct):
    """One event of a stream, or a whole answer."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: msgspec.Raw = _NOTHING

    @property
    def is_error(self) -> bool:
        return bytes(self.error) != bytes(_NOTHING)

    def has_output(self) -> bool:
        """Whether it carries text, reasoning or a piece of a tool call."""
        return any(
            said.content or said.reasoning_content or said.tool_calls
            for choice in self.choices
            if (said := choice.said) is not None
        )

    def text(self) -> str:
        """What it adds to the answer's text."""
        return "".join(said.content or "" for choice in self.choices if (said := choice.said) is not None)


class _ErrorBody(msgspec.Struct):
    message: str = ""
    code: str | int | None = None


class _WrappedError(msgspec.Struct):
    error: _ErrorBody


def error_text(body: bytes) -> str:
    """The message of an error body in OpenAI's shape, wrapped or not; any other body as it is, shortened."""
    try:
        return msgspec.json.decode(body, type=_WrappedError).error.message
    except msgspec.DecodeError:
        pass
    try:
        found = msgspec.json.decode(body, type=_ErrorBody).message
    except msgspec.DecodeError:
        found = ""
    return found or body[:300].decode("utf-8", "replace").strip() or "(empty body)"
