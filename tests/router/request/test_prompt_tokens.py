"""Prompts to token ids with a small tokenizer made here, and the errors of one that cannot be loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers", reason="needs the extra 'exact'")

from tokenizers import Tokenizer, models, pre_tokenizers, processors

from router.errors import ConfigError
from router.request import prompt_tokens
from router.request.parse import parse
from router.request.prompt_tokens import check_tokenizer, load_tokenizer, needs_tokenizer, tokens_of

WORDS = ["<s>", "<|user|>", "<|assistant|>", "hello", "world", "?"]
TEMPLATE = "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} {% endfor %}<|assistant|>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A word-level tokenizer that puts <s> before every text, and a template."""
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.enable_truncation(2)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE, "bos_token": "<s>"}))
    return tmp_path


def ids(folder: Path, path: str, **body: Any) -> list[int] | None:
    return tokens_of(parse(path, json.dumps(body).encode()), load_tokenizer(folder))


CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hello world"}]}


def test_text_gets_special_tokens_and_a_rendered_chat_none_and_nothing_is_cut(folder: Path) -> None:
    assert ids(folder, "/generate", text="hello world hello") == [0, 3, 4, 3]
    assert ids(folder, "/v1/completions", prompt="hello") == [0, 3]
    assert ids(folder, "/v1/chat/completions", **CHAT) == [1, 3, 4, 2]


def test_ids_are_taken_as_they_are_without_any_tokenizer() -> None:
    for path, body in (("/generate", {"input_ids": [5, 6]}), ("/v1/completions", {"prompt": [5, 6]})):
        parsed = parse(path, json.dumps(body).encode())

        assert tokens_of(parsed, None) == [5, 6]
        assert not needs_tokenizer(parsed)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"text": ["a", "b"]}),
        ("/generate", {"input_ids": [[1], [2]]}),
        ("/generate", {"text": "a", "image_data": "x"}),
        ("/generate", {"text": "a", "lora_path": "l"}),
        ("/generate", {"text": "a", "extra_key": "l"}),
        ("/v1/completions", {"prompt": "a", "model": "base:adapter"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
        ("/v1/messages", CHAT),
        ("/v1/embeddings", {"input": "a"}),
    ],
)
def test_what_cannot_be_known_is_none(folder: Path, path: str, body: dict[str, Any]) -> None:
    assert ids(folder, path, **body) is None


def test_a_template_in_a_file_of_its_own_or_among_named_ones_is_found(folder: Path) -> None:
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "hello"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": named, "eos_token": {"content": "?"}}))
    assert ids(folder, "/v1/chat/completions", **CHAT) == [3]

    (folder / "chat_template.jinja").write_text("world {{ eos_token }}")
    assert ids(folder, "/v1/chat/completions", **CHAT) == [4, 5]


def test_without_a_template_chats_are_unknown(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()

    assert ids(folder, "/v1/chat/completions", **CHAT) is None
    assert ids(folder, "/generate", text="hello") == [0, 3]


def test_a_tokenizer_that_is_missing_or_damaged_is_one_clear_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        check_tokenizer(tmp_path / "nowhere")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_tokenizer(folder)


def test_without_the_extra_that_reads_tokenizers_the_message_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_tokens, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'trieway\[exact\]'"):
        check_tokenizer(folder)
