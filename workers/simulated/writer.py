"""What the simulated model says: words, chosen by the seed and the prompt, cut where sampling parameters say so.

The whole answer of a request is planned when it arrives, because nothing in it depends on time; the engine then only
decides when each token comes out. Text is ASCII and its first n tokens are its first 4n characters, so neither
streaming nor stop strings need a detokenizer. Called by the API modules. Not here: constrained output (constrained).
"""

from __future__ import annotations

import functools
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from workers.simulated.tokenizer import BYTES_PER_TOKEN, EOS_ID, Tokenizer

# Words whose length and a space fill whole tokens: three letters make one, seven make two.
_THREE = (
    "the and for you are was not but all can had her one our out day get has him his how man new now old see two way "
    "who its did yes oil sit set run eat far sea eye ago off arm act add age air art ask bad bed big bit box boy buy "
    "car cat"
)
_SEVEN = (
    "ability account another balance because benefit between brought capital captain careful central century certain "
    "chapter clearly climate company compare concern contain control correct council country culture current despite "
    "develop digital discuss display earlier economy element evening example explain express factory failure feature "
    "federal feeling finance foreign forward freedom further general growing history however hundred imagine improve "
    "include instead journey justice kitchen leading library measure meeting message million minimum morning natural "
    "network nothing operate opinion outside package patient pattern perfect perhaps picture popular private problem "
    "process produce product program project promise protect provide quality quarter quickly reality receive reflect "
    "regular related science section service several similar society special station subject success support surface "
    "teacher through towards traffic variety version village weather welcome whether without working written"
)

BOOK_TOKENS = 1 << 16
"""Answers are read from a ring of this many tokens: far longer than any answer, so that few start alike."""
_HASHED_TOKENS = (
    1024  # the end of a prompt tells prompts apart; hashing 100,000 tokens would cost as much as reading it
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """The sampling parameters that change what the simulated model says. None where the request set no limit."""

    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    no_stop_trim: bool = False
    n: int = 1
    seed: int | None = None
    json_schema: dict[str, Any] | None = None
    regex: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One planned answer: `tokens` in order, the `text` a client will have read at the end, and why it ends.

    `finish_reason` is SGLang's: {"type": "length", "length": n} or {"type": "stop", "matched": token id or string}.
    """

    tokens: Sequence[int]
    text: str
    finish_reason: dict[str, Any]

    def text_of(self, token_count: int) -> str:
        """The text of the first `token_count` tokens."""
        return self.text[: token_count * BYTES_PER_TOKEN]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Book:
    """The ring of words: `text`, its `tokens`, and the tokens at which a word begins."""

    text: str
    tokens: Sequence[int]
    starts: Sequence[int]


@functools.lru_cache(maxsize=8)
def _book(seed: int) -> _Book:
    rng = random.Random(seed)
    three, seven = _THREE.split(), _SEVEN.split()
    pieces: list[str] = []
    starts: list[int] = []
    while len(pieces) < BOOK_TOKENS:
        starts.append(len(pieces))
        if rng.random() < 0.4:
            pieces.append(rng.choice(three) + " ")
        else:
            word = rng.choice(seven) + " "
            pieces += [word[:4], word[4:]]
    text = "".join(pieces[:BOOK_TOKENS])
    return _Book(text=text, tokens=Tokenizer().encode(text), starts=starts)


class Writer:
    """Plans answers. Two writers with the same arguments plan the same answers."""

    def __init__(self, tokenizer: Tokenizer, *, seed: int, natural_tokens: int, stop_early: bool) -> None:
        """`natural_tokens`: mean length of an answer that ends by itself; drawn between half and one and a half of it.

        An answer ends by itself where the request set no max_tokens, or, with `stop_early`, even before that limit.
        """
        self._tokenizer = tokenizer
        self._seed = seed
        self._natural_tokens = natural_tokens
        self._stop_early = stop_early
        self._book = _book(seed)

    def plan(
        self, prompt: Sequence[int], sampling: Sampling, choice: int, limit: int, fixed: str | None = None
    ) -> Plan:
        """The answer to `prompt`, at most `limit` tokens. `fixed` replaces the words and ends by itself."""
        tail = prompt[-_HASHED_TOKENS:]
        key = struct.pack(f"<{len(tail)}q", *tail) + struct.pack("<qqq", len(prompt), choice, sampling.seed or 0)
        draw = xxhash.xxh3_64_intdigest(key, self._seed & 0xFFFFFFFFFFFFFFFF)
        maximum = limit if sampling.max_new_tokens is None else min(limit, sampling.max_new_tokens)
        if fixed is not None:
            words = self._tokenizer.encode(fixed)
            complete = len(words) < maximum
            text, tokens = fixed, words[:maximum]
            if complete:
                tokens = [*words, EOS_ID]
            text = text[: len(tokens) * BYTES_PER_TOKEN]
        else:
            natural = self._natural_length(draw, sampling)
            ends = not sampling.ignore_eos and natural <= maximum
            count = natural - 1 if ends else maximum
            tokens, text = self._read(self._book.starts[draw % len(self._book.starts)], count)
            if ends:
                tokens.append(EOS_ID)
            complete = ends
        return _finish(tokens, text, sampling, complete)

    def _natural_length(self, draw: int, sampling: Sampling) -> int:
        """Tokens of an answer that ends by itself, its end token included; huge where it would never end."""
        if sampling.max_new_tokens is not None and not self._stop_early:
            return 1 << 62
        spread = (draw >> 32) / (1 << 32)  # the high half; the low half chose the words
        return max(2, sampling.min_new_tokens + 1, int(self._natural_tokens * (0.5 + spread)))

    def _read(self, start: int, count: int) -> tuple[list[int], str]:
        tokens: list[int] = []
        texts: list[str] = []
        while count > 0:
            taken = min(count, BOOK_TOKENS - start)
            tokens += self._book.tokens[start : start + taken]
            texts.append(self._book.text[start * BYTES_PER_TOKEN : (start + taken) * BYTES_PER_TOKEN])
            count -= taken
            start = 0
        return tokens, "".join(texts)


def _finish(tokens: list[int], text: str, sampling: Sampling, complete: bool) -> Plan:
    """Cuts the answer at the first stop string or stop token that comes after `min_new_tokens`."""
    reason: dict[str, Any]
    reason = {"type": "stop", "matched": EOS_ID} if complete else {"type": "length", "length": len(tokens)}
    first = sampling.min_new_tokens
    if sampling.stop_token_ids:
        for index in range(first, len(tokens)):
            if tokens[index] in sampling.stop_token_ids:
                reason = {"type": "stop", "matched": tokens[index]}
                tokens = tokens[: index + 1]
                keep = index + 1 if sampling.no_stop_trim else index
                text = text[: keep * BYTES_PER_TOKEN]
                break
    found = [(at, stop) for stop in sampling.stop if stop and (at := text.find(stop, first * BYTES_PER_TOKEN)) >= 0]
    if found:
        at, stop = min(found, key=lambda match: match[0] + len(match[1]))
        end = at + len(stop)
        tokens = tokens[: -(-end // BYTES_PER_TOKEN)]
        text = text[:end] if sampling.no_stop_trim else text[:at]
        reason = {"type": "stop", "matched": stop}
    return Plan(tokens=tokens, text=text, finish_reason=reason)
