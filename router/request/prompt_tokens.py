"""A parsed request to its prompt's token ids: the ids it has, or text through the model's own tokenizer and template.

Loading takes seconds and tokenising milliseconds, so both run in request.exact's threads. Needs the packages
tokenizers and jinja2 (extra `exact`) for text; prompts that are token ids already need neither.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from router.errors import ConfigError
from router.request.chat_template import CannotRender, ChatTemplate
from router.request.parsed_request import Body, ParsedRequest

log = logging.getLogger(__name__)

Encode = Callable[[str, bool], list[int]]
"""Text, and whether to add the model's special tokens, to ids."""
MEDIA = ("image_data", "video_data", "audio_data", "input_embeds")


class PromptTokenizer:
    """One model's tokenizer and chat template."""

    def __init__(self, encode: Encode, template: ChatTemplate | None) -> None:
        self._encode = encode
        self._template = template

    def of_text(self, text: str) -> list[int]:
        """Ids of a plain prompt, with what the tokenizer puts around every text."""
        return self._encode(text, True)

    def of_chat(self, body: Body) -> list[int] | None:
        """Ids of a rendered chat; None without a template. Raises CannotRender."""
        return None if self._template is None else self._encode(self._template.render(body), False)


def check_tokenizer(folder: Path) -> None:
    """Raises ConfigError, which says what is missing, when no tokenizer can be loaded from there. Cheap."""
    if find_spec("tokenizers") is None or find_spec("jinja2") is None:
        raise ConfigError(
            "Exact prefix matching of text needs the extra 'exact': pip install 'trieway[exact]'.",
            param="exact.tokenizer",
        )
    if not (folder / "tokenizer.json").is_file():
        raise ConfigError(f"There is no tokenizer.json in {folder}.", param="exact.tokenizer")


def load_tokenizer(folder: Path) -> PromptTokenizer:
    """From a model's folder with `tokenizer.json`. Takes seconds. Raises ConfigError, which says what is wrong."""
    check_tokenizer(folder)
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        settings = _json_of(folder / "tokenizer_config.json")
        template = _template(folder, settings)
    except Exception as error:  # tokenizers raises bare Exception for a file it cannot read
        raise ConfigError(f"The tokenizer in {folder} cannot be loaded: {error}", param="exact.tokenizer") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encode(text: str, special: bool) -> list[int]:
        [found] = tokenizer.encode_batch_fast([text], add_special_tokens=special)  # a batch lets go of the GIL
        ids: list[int] = found.ids
        return ids

    return PromptTokenizer(encode, template)


def tokens_of(parsed: ParsedRequest, tokenizer: PromptTokenizer | None) -> list[int] | None:
    """The prompt's ids; None where they cannot be known: no tokenizer, a batch, media, another cache namespace."""
    body = parsed.body
    if body.get("lora_path") or body.get("extra_key") or ":" in (parsed.model or ""):
        return None
    if parsed.endpoint == "/generate":
        if any(body.get(name) for name in MEDIA):
            return None
        prompt = body.get("text") if body.get("text") is not None else body.get("input_ids")
        return _plain(prompt, tokenizer)
    if parsed.endpoint == "/v1/completions":
        return _plain(body.get("prompt"), tokenizer)
    if parsed.endpoint == "/v1/chat/completions" and tokenizer is not None:
        try:
            return tokenizer.of_chat(body)
        except CannotRender as error:
            log.debug("a chat was not rendered: %s", error)
    return None


def needs_tokenizer(parsed: ParsedRequest) -> bool:
    """Whether the prompt is text."""
    prompt = parsed.body.get("input_ids") if parsed.endpoint == "/generate" else parsed.body.get("prompt")
    return parsed.body.get("text") is not None or not isinstance(prompt, list)


def _plain(prompt: Any, tokenizer: PromptTokenizer | None) -> list[int] | None:
    if isinstance(prompt, str):
        return tokenizer.of_text(prompt) if tokenizer is not None else None
    if isinstance(prompt, list) and prompt and all(type(each) is int for each in prompt):
        return prompt
    return None


def _json_of(file: Path) -> dict[str, Any]:
    found = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return found if isinstance(found, dict) else {}


def _template(folder: Path, settings: dict[str, Any]) -> ChatTemplate | None:
    """From chat_template.jinja, else from tokenizer_config.json (a string, or named ones of which `default` counts)."""
    file = folder / "chat_template.jinja"
    source: Any = file.read_text("utf-8") if file.is_file() else settings.get("chat_template")
    if isinstance(source, list):
        source = next((each.get("template") for each in source if each.get("name") == "default"), None)
    if not isinstance(source, str):
        return None
    special = {name: _token(value) for name, value in settings.items() if name.endswith("_token")}
    return ChatTemplate(source, {name: value for name, value in special.items() if value is not None})


def _token(value: Any) -> str | None:
    """A special token is written as a string, or as an object with its content."""
    found = value.get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) else None
