"""Log-probabilities in SGLang 0.5.21's shapes: the rows of /generate, and objects of the OpenAI routes made of them.

There is no model, so the numbers are a function of a token and the one before it and mean nothing beyond one rule: what
the model says is more likely than anything else at its place. Equal prompts get equal numbers, as choosing among given
answers needs (sgl.select). Called by native_api, openai_api and openai_stream. Not here: fields of requests (calls).
"""

from __future__ import annotations

import struct
from typing import Any

import xxhash

from workers.simulated.generation import Generation, Wanted
from workers.simulated.tokenizer import BYTES_PER_TOKEN, Tokenizer

UNLIKELY = -4.0
"""Of all that is not said; what is said has -0.5 to -1. Twenty of the first and one of the second make less than 1."""

Row = tuple[float | None, int, str | None]
"""Logarithm, token id, and its text where it was asked for. The first token of a prompt's part has no logarithm."""


class Logprobs:
    """The rows of one generation so far."""

    def __init__(self, tokenizer: Tokenizer, wanted: Wanted, generation: Generation) -> None:
        self._tokenizer = tokenizer
        self._wanted = wanted
        self._prompt = generation.prompt
        self._said = generation.plan.tokens[: generation.produced]

    def native_fields(self) -> dict[str, Any]:
        """What `meta_info` holds, in SGLang's order."""
        wanted = self._wanted
        fields: dict[str, Any] = {
            "input_token_logprobs": self.prompt_rows(),
            "output_token_logprobs": self.said_rows(),
            "output_token_logprobs_length": len(self._said),
        }
        if wanted.top > 0:
            fields["input_top_logprobs"] = self.prompt_tops()
            fields["output_top_logprobs"] = self.said_tops()
        if wanted.token_ids is not None:
            fields["input_token_ids_logprobs"] = [
                None if place == self._first else self._of_ids(place, said=False) for place in self._prompt_places
            ]
            fields["output_token_ids_logprobs"] = [self._of_ids(place, said=True) for place in self._said_places(0)]
        return fields

    def prompt_rows(self) -> list[Row]:
        """A row for every prompt token that was asked for."""
        return [
            self._row(None if place == self._first else self._log(place, self._at(place), said=False), self._at(place))
            for place in self._prompt_places
        ]

    def said_rows(self, since: int = 0) -> list[Row]:
        """A row for every token said from the `since`-th on."""
        return [self._row(self._log(place, self._at(place), said=True), self._at(place))
                for place in self._said_places(since)]  # fmt: skip

    def prompt_tops(self) -> list[list[Row] | None]:
        """The most likely tokens at the place of every prompt token that was asked for."""
        return [None if place == self._first else self._top(place, said=False) for place in self._prompt_places]

    def said_tops(self, since: int = 0) -> list[list[Row]]:
        """The most likely tokens at every place said from the `since`-th on; what was said is the first of them."""
        return [self._top(place, said=True) for place in self._said_places(since)]

    @property
    def _first(self) -> int:
        return len(self._prompt) if self._wanted.start is None else self._wanted.start

    @property
    def _prompt_places(self) -> range:
        return range(self._first, len(self._prompt))

    def _said_places(self, since: int) -> range:
        return range(len(self._prompt) + since, len(self._prompt) + len(self._said))

    def _at(self, place: int) -> int:
        """The token at a place of the prompt and the answer after it."""
        length = len(self._prompt)
        return self._prompt[place] if place < length else self._said[place - length]

    def _log(self, place: int, token: int, *, said: bool) -> float:
        """The logarithm of `token` at `place`; `said`: the model chose what stands there."""
        share = _share(self._at(place - 1), token, 0)
        return -0.5 - 0.5 * share if said and token == self._at(place) else UNLIKELY - 5.0 * share

    def _row(self, log: float | None, token: int) -> Row:
        text = self._tokenizer.decode([token], skip_special=False) if self._wanted.text else None
        return (None if log is None else round(log, 6), token, text)

    def _top(self, place: int, *, said: bool) -> list[Row]:
        others = [_other(self._at(place - 1), number) for number in range(self._wanted.top)]
        candidates = dict.fromkeys([self._at(place), *others])
        logs = sorted(((self._log(place, token, said=said), token) for token in candidates), reverse=True)
        return [self._row(log, token) for log, token in logs[: self._wanted.top]]

    def _of_ids(self, place: int, *, said: bool) -> list[Row]:
        ids = self._wanted.token_ids or ()
        return [self._row(self._log(place, token, said=said), token) for token in ids]


def _share(before: int, token: int, salt: int) -> float:
    """A number in [0, 1) that tells the arguments apart."""
    return xxhash.xxh3_64_intdigest(struct.pack("<QQQ", before, token, salt)) / 2**64


def _other(before: int, number: int) -> int:
    """A token of small letters that could have come after `before`; different ones for numbers below 26."""
    drawn = xxhash.xxh3_64_intdigest(struct.pack("<Q", before))
    letters = bytes(97 + ((drawn >> 8 * index) + number) % 26 for index in range(BYTES_PER_TOKEN))
    return int.from_bytes(letters, "little")


def completion_logprobs(tokenizer: Tokenizer, generation: Generation, since: int) -> dict[str, list[Any]]:
    """`logprobs` of a choice of /v1/completions: what was said from the `since`-th token on, after an echoed prompt."""
    wanted = generation.wanted or Wanted()
    found = Logprobs(tokenizer, wanted, generation)
    rows, tops = found.said_rows(since), list[list[Row] | None](found.said_tops(since))
    if since == 0:
        rows, tops = found.prompt_rows() + rows, found.prompt_tops() + tops
    return {
        "text_offset": [-1] * len(rows),  # SGLang does not count
        "token_logprobs": [log for log, _, _ in rows],
        "tokens": [text for _, _, text in rows],
        "top_logprobs": [None if top is None else {text: log for log, _, text in top} for top in tops]
        if wanted.top
        else [],
    }


def chat_logprobs(tokenizer: Tokenizer, generation: Generation, since: int) -> dict[str, list[Any]]:
    """`logprobs` of a choice of /v1/chat/completions, from the `since`-th token on."""
    found = Logprobs(tokenizer, generation.wanted or Wanted(), generation)
    return {
        "content": [
            {**_spelled(row), "top_logprobs": [_spelled(other) for other in top]}
            for row, top in zip(found.said_rows(since), found.said_tops(since), strict=True)
        ]
    }


def _spelled(row: Row) -> dict[str, Any]:
    log, _, text = row
    return {"token": text, "bytes": list((text or "").encode()), "logprob": log}
