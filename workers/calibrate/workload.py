"""The workload of `compare`: levels of load made of prompts with shared prefixes, the same for every server.

Open levels send at a rate with exponential gaps; closed levels keep a number of users busy, each sending its next
request when the last has ended. Called by commands.py. Not here: sending (runners), tables (comparison.py).
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from workers.calibrate.experiment import Call, Experiment
from workers.calibrate.prompts import Prompt, Segment
from workers.calibrate.server_facts import ServerFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What requests are like.

    A request continues a conversation, or starts one on one of `prefixes` system prompts. Lengths are log-uniform:
    prefixes in `prefix_tokens`, what a turn adds in `turn_tokens`, answers in `output_tokens`. A conversation has up to
    `turns` turns and no prompt is longer than `longest_prompt_tokens`.
    """

    prefixes: int
    prefix_tokens: tuple[int, int]
    turn_tokens: tuple[int, int]
    output_tokens: tuple[int, int]
    turns: int
    longest_prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """`rates`: (requests/s, requests). `users`: (users, requests of each)."""

    rates: tuple[tuple[float, int], ...]
    users: tuple[tuple[int, int], ...]


FULL_MIX = Mix(
    prefixes=12,
    prefix_tokens=(256, 8192),
    turn_tokens=(64, 12_000),
    output_tokens=(16, 256),
    turns=5,
    longest_prompt_tokens=30_000,
)
FULL_LEVELS = Levels(
    rates=((1.0, 24), (2.0, 48), (4.0, 100), (6.0, 140)),
    users=((1, 16), (4, 12), (16, 8), (32, 6), (64, 4), (128, 3)),
)
"""About three minutes on an H200 with a model of 8 billion parameters."""

QUICK_MIX = Mix(
    prefixes=3,
    prefix_tokens=(64, 512),
    turn_tokens=(16, 512),
    output_tokens=(4, 16),
    turns=3,
    longest_prompt_tokens=1500,
)
QUICK_LEVELS = Levels(rates=((2.0, 10),), users=((1, 6), (4, 4)))


def workload(mix: Mix, levels: Levels, facts: ServerFacts, *, seed: int = 0) -> list[Experiment]:
    """One experiment for each level. Levels with more users than the server runs at once are left out."""
    longest = min(mix.longest_prompt_tokens, facts.max_prompt_tokens - 2 * mix.output_tokens[1])
    seeds = itertools.count(seed * 1_000_000 + 500_001)
    experiments = []
    for rate_per_s, requests in levels.rates:
        rng = random.Random(f"{seed} rate {rate_per_s}")
        calls = _open(rng, list(_requests(rng, mix, longest, seeds, requests)), rate_per_s)
        experiments.append(Experiment(name=f"{rate_per_s:g} requests/s", group="load", calls=calls))
    for users, each in levels.users:
        if users > facts.max_running_requests:
            continue
        rng = random.Random(f"{seed} users {users}")
        calls = _closed(list(_requests(rng, mix, longest, seeds, users * each)), users)
        experiments.append(Experiment(name=f"{users} at a time", group="load", calls=calls))
    return experiments


Request = tuple[Prompt, int]
"""A prompt and the tokens of its answer."""


def _open(rng: random.Random, requests: Sequence[Request], rate_per_s: float) -> tuple[Call, ...]:
    at_s = 0.0
    calls = []
    for prompt, output in requests:
        calls.append(Call(prompt=prompt, output_tokens=output, delay_s=round(at_s, 5)))
        at_s += rng.expovariate(rate_per_s)
    return tuple(calls)


def _closed(requests: Sequence[Request], users: int) -> tuple[Call, ...]:
    return tuple(
        Call(prompt=prompt, output_tokens=output, after=(index - users,) if index >= users else ())
        for index, (prompt, output) in enumerate(requests)
    )


def _requests(rng: random.Random, mix: Mix, longest: int, seeds: Iterator[int], count: int) -> Iterator[Request]:
    """Requests in the order of sending. What an answer said is no part of the next turn, so that prompts are the same
    whoever answers; a stand-in of its own segment takes its place.
    """
    prefixes = [Segment(next(seeds), _log_uniform(rng, mix.prefix_tokens)) for _ in range(mix.prefixes)]
    open_conversations: list[tuple[Prompt, int]] = []
    for _ in range(count):
        if open_conversations and rng.random() < 1 - 1 / mix.turns:
            prompt, turns = open_conversations.pop(rng.randrange(len(open_conversations)))
        else:
            prompt, turns = (prefixes[rng.randrange(mix.prefixes)],), 0
        prompt = (*prompt, Segment(next(seeds), _log_uniform(rng, mix.turn_tokens)))
        prompt = _at_most(prompt, longest)
        output = _log_uniform(rng, mix.output_tokens)
        yield prompt, output
        if turns + 1 < mix.turns and sum(part.tokens for part in prompt) + output < longest // 2:
            open_conversations.append(((*prompt, Segment(next(seeds), output)), turns + 1))


def _at_most(prompt: Prompt, tokens: int) -> Prompt:
    """The prompt cut to a length."""
    kept: list[Segment] = []
    for part in prompt:
        left = tokens - sum(one.tokens for one in kept)
        if left <= 0:
            break
        kept.append(Segment(part.seed, min(part.tokens, left)))
    return tuple(kept)


def _log_uniform(rng: random.Random, bounds: tuple[int, int]) -> int:
    low, high = bounds
    return round(math.exp(rng.uniform(math.log(low), math.log(high))))
