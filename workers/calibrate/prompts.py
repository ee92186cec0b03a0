"""Prompts as seeded runs of token ids: the same ids on every machine, shared prefixes by shared segments.

Ids and not text, so that a prompt's length is exact on any server. Called by schedule.py, workload.py and the runners.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

FIRST_ID = 100
"""Ids below are special tokens in most vocabularies."""
LAST_ID = 1999
"""The smallest vocabulary that is met: the CPU test model's 2,048 tokens."""


class Segment(NamedTuple):
    """A run of `tokens` ids drawn from `seed`. A shorter run of the same seed is a prefix of a longer one."""

    seed: int
    tokens: int


Prompt = tuple[Segment, ...]


def token_ids(prompt: Iterable[Segment]) -> array[int]:
    """The ids of a prompt."""
    ids = array("I")
    for segment in prompt:
        ids.extend(_run(segment))
    return ids


def text_of(prompt: Iterable[Segment]) -> str:
    """A text of about four characters for each token; how many tokens it is depends on the server's tokenizer."""
    return " ".join(f"{number:x}" for number in token_ids(prompt))


def length(prompt: Iterable[Segment]) -> int:
    """Tokens of a prompt."""
    return sum(segment.tokens for segment in prompt)


@lru_cache(maxsize=256)
def _run(segment: Segment) -> array[int]:
    rng = random.Random(segment.seed)
    return array("I", rng.choices(range(FIRST_ID, LAST_ID + 1), k=segment.tokens))
