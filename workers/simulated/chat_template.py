"""Messages and tools to prompt tokens, in ChatML: the simulated model's chat template.

A conversation's next turn, with the assistant's answer echoed back, starts with the tokens of the last turn and its
answer, so the prefix cache sees what it would see on a real server. Media parts become runs of placeholder tokens
derived from their content. Called by the chat-shaped routes and by /tokenize. Not here: validation of the request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import xxhash

from workers.simulated.tokenizer import Tokenizer

MEDIA_TOKENS = {"image_url": 256, "video_url": 1024, "audio_url": 128, "input_audio": 128}
"""Placeholder tokens for a media part: of the order of current vision models (Qwen2-VL: 256 for 448x448)."""
PART_TYPES = frozenset({"text", "thinking", "reasoning", "tool_reference", *MEDIA_TOKENS})
"""The content parts that SGLang 0.5.21 knows."""
_MEDIA_LEAD = 0xF9  # first byte of every media token; no UTF-8 text contains it

Message = Mapping[str, Any]

_compact = msgspec.json.Encoder().encode


class PromptBuilder:
    """Collects text, and token runs that have no text, in order."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._text: list[str] = []
        self._ids: list[int] = []

    def text(self, text: str) -> None:
        self._text.append(text)

    def media(self, kind: str, content: object) -> None:
        """A run of tokens that two parts share exactly when they hold the same media."""
        self._flush()
        digest = xxhash.xxh3_64_intdigest(_compact([kind, content]))
        self._ids.extend(
            _MEDIA_LEAD | (((digest + position * 0x9E3779B1) & 0xFFFFFF) << 8) for position in range(MEDIA_TOKENS[kind])
        )

    def ids(self) -> list[int]:
        self._flush()
        return self._ids

    def _flush(self) -> None:
        if self._text:
            self._ids.extend(self._tokenizer.encode("".join(self._text)))
            self._text.clear()


def render_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] | None = None,
    *,
    continue_final_message: bool = False,
) -> list[int]:
    """Prompt tokens of a conversation, ending where the assistant's answer starts.

    With `continue_final_message` a last assistant message is left open and continued. Tools stand in the system part,
    in the order given. Unknown content parts are skipped.
    """
    prompt = PromptBuilder(tokenizer)
    rest = list(messages)
    leading = rest.pop(0) if rest and _role(rest[0]) in {"system", "developer"} else None
    if leading is not None or tools:
        prompt.text("<|im_start|>system\n")
        if leading is not None:
            _add_content(prompt, leading.get("content"))
        if tools:
            prompt.text(_tools_text(tools))
        prompt.text("<|im_end|>\n")
    open_end = continue_final_message and bool(rest) and _role(rest[-1]) == "assistant"
    for index, message in enumerate(rest):
        prompt.text(f"<|im_start|>{_role(message)}\n")
        _add_message(prompt, message)
        if not (open_end and index == len(rest) - 1):
            prompt.text("<|im_end|>\n")
    if not open_end:
        prompt.text("<|im_start|>assistant\n")
    return prompt.ids()


def _role(message: Message) -> str:
    return str(message.get("role", "user")).lower()


def _tools_text(tools: Sequence[Mapping[str, Any]]) -> str:
    lines = [_compact(tool).decode() for tool in tools]
    return "\n\nYou can call these tools:\n" + "\n".join(lines)


def _add_message(prompt: PromptBuilder, message: Message) -> None:
    reasoning = message.get("reasoning_content")
    if reasoning:
        prompt.text(f"<think>\n{reasoning}\n</think>\n\n")
    _add_content(prompt, message.get("content"))
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        name, arguments = function.get("name") or "", function.get("arguments")
        text = arguments if isinstance(arguments, str) else _compact(arguments or {}).decode()
        prompt.text(f'\n<tool_call>\n{{"name": "{name}", "arguments": {text}}}\n</tool_call>')


def _add_content(prompt: PromptBuilder, content: object) -> None:
    if isinstance(content, str):
        prompt.text(content)
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, str):
                prompt.text(part)
            elif isinstance(part, dict):
                kind = part.get("type")
                if kind in MEDIA_TOKENS:
                    prompt.media(kind, part.get(kind))
                else:
                    prompt.text(str(part.get("text") or part.get("thinking") or ""))
