"""The fixed schedule of calibration: which experiments, in which order, on a server with given limits.

Sizes that a server cannot hold are left out. Every prompt is new, unless it is meant to find its prefix cached, and
every experiment starts with an empty cache. Called by commands.py. Not here: sending (runners), fitting (fit.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from workers.calibrate.experiment import Call, Experiment
from workers.calibrate.prompts import Prompt, Segment
from workers.calibrate.server_facts import ServerFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured.

    prefill: prompt lengths, uncached. cached: (cached, new) tokens. repeats: how often each single prompt is measured.
    rushes: (prompts, tokens of each) that come at once to an idle server. bursts: the same, behind one prompt of
    `blocker` tokens. decode: (requests, tokens of context each), `decode_tokens` made by each. shared: the same, with a
    context that all share. mixed: (decoding requests, their context, prompt lengths that arrive meanwhile). text:
    prompt lengths sent as text.
    """

    prefill: tuple[int, ...]
    cached: tuple[tuple[int, int], ...]
    repeats: int
    rushes: tuple[tuple[int, int], ...]
    blocker: int
    bursts: tuple[tuple[int, int], ...]
    decode: tuple[tuple[int, int], ...]
    shared: tuple[tuple[int, int], ...]
    decode_tokens: int
    mixed: tuple[tuple[int, int, tuple[int, ...]], ...]
    mixed_tokens: int
    text: tuple[int, ...]


FULL = Sizes(
    prefill=(128, 256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12_288, 16_384, 24_576, 30_000),
    cached=(
        (1024, 64), (1024, 512), (4096, 64), (4096, 1024), (8192, 64), (8192, 512), (8192, 2048),
        (16_384, 64), (16_384, 1024), (16_384, 4096), (28_000, 64), (28_000, 512), (28_000, 2000),
    ),
    repeats=4,
    rushes=((16, 16), (64, 16), (128, 16)),
    blocker=8192,
    bursts=((2, 128), (8, 128), (32, 128), (64, 32), (4, 512), (16, 512), (2, 2048), (8, 2048), (4, 8192)),
    decode=(
        (1, 128), (2, 128), (4, 128), (8, 128), (16, 128), (24, 128), (32, 128), (48, 128), (64, 128), (96, 128),
        (128, 128), (1, 16_000), (1, 30_000), (4, 16_000), (8, 8000), (16, 8000), (32, 4096), (64, 4096), (128, 2048),
    ),
    shared=((8, 16_000), (32, 8000), (64, 8000), (128, 4000)),
    decode_tokens=64,
    mixed=((8, 512, (512, 2048, 8192)), (32, 1024, (128, 512, 2048, 8192)), (96, 512, (512, 2048, 8192))),
    mixed_tokens=256,
    text=(256, 1024, 4096, 12_000),
)  # fmt: skip
"""About three minutes on an H200 with a model of 8 billion parameters."""

QUICK = Sizes(
    prefill=(128, 256, 512, 1024, 2048, 3072),
    cached=((512, 64), (2048, 64), (2048, 512)),
    repeats=3,
    rushes=((32, 8),),
    blocker=2048,
    bursts=((4, 64), (4, 512)),
    decode=((1, 64), (2, 64), (4, 64), (8, 64), (1, 2048), (4, 1024), (8, 1024)),
    shared=((8, 2048),),
    decode_tokens=24,
    mixed=((4, 128, (128, 1024)),),
    mixed_tokens=64,
    text=(256, 1024),
)
"""For tiny models on a CPU, and for tests."""


def schedule(sizes: Sizes, facts: ServerFacts, *, seed: int = 0) -> list[Experiment]:
    """The experiments that fit the server, cheapest groups first. Equal arguments give equal prompts."""
    seeds = itertools.count(seed * 1_000_000 + 1)
    experiments = [
        _warm_up(seeds),
        *_prefill(sizes, seeds),
        *_cached(sizes, seeds),
        *_text(sizes, seeds),
        *_bursts(sizes, seeds),
        *_decode(sizes, seeds),
        *_mixed(sizes, seeds),
    ]
    return [experiment for experiment in experiments if _fits(experiment, facts)]


def _fits(experiment: Experiment, facts: ServerFacts) -> bool:
    """Whether all calls could hold their KV at once, with a margin for SGLang's reserve."""
    totals = [sum(part.tokens for part in call.prompt) + call.output_tokens for call in experiment.calls]
    together = experiment.group in {"burst", "decode", "shared", "mixed"}
    at_once = sum(totals) if together and experiment.group != "shared" else max(totals)
    running = len(totals) if together else 1
    return (
        max(totals) < facts.max_prompt_tokens
        and at_once < 0.9 * facts.kv_capacity_tokens
        and running <= facts.max_running_requests
    )


def _new(seeds: Iterator[int], tokens: int) -> Prompt:
    return (Segment(next(seeds), tokens),)


def _one_by_one(name: str, group: str, prompts: list[Prompt], *, text: bool = False) -> Experiment:
    """Each prompt alone: the next is sent when the one before it has its answer of one token."""
    calls = [
        Call(prompt=prompt, output_tokens=1, after=(index - 1,) if index else (), delay_s=0.02, text=text)
        for index, prompt in enumerate(prompts)
    ]
    return Experiment(name=name, group=group, calls=tuple(calls))


def _warm_up(seeds: Iterator[int]) -> Experiment:
    """Not measured: the first requests of some lengths compile and allocate."""
    prompts = [_new(seeds, tokens) for tokens in (32, 128, 512, 2048)]
    return _one_by_one("warm-up", "warm-up", prompts)


def _prefill(sizes: Sizes, seeds: Iterator[int]) -> Iterator[Experiment]:
    for tokens in sizes.prefill:
        yield _one_by_one(f"prefill {tokens}", "prefill", [_new(seeds, tokens) for _ in range(sizes.repeats)])


def _cached(sizes: Sizes, seeds: Iterator[int]) -> Iterator[Experiment]:
    for cached, new in sizes.cached:
        prefix = Segment(next(seeds), cached)
        prompts = [(prefix,)] + [(prefix, *_new(seeds, new)) for _ in range(sizes.repeats)]
        yield _one_by_one(f"prefill {new} after {cached} cached", "prefill", prompts)


def _text(sizes: Sizes, seeds: Iterator[int]) -> Iterator[Experiment]:
    """The same text again and again: from the second on, what is left is reading it."""
    for tokens in sizes.text:
        prompt = _new(seeds, tokens)
        yield _one_by_one(f"text {tokens}", "text", [prompt] * (sizes.repeats + 1), text=True)


def _bursts(sizes: Sizes, seeds: Iterator[int]) -> Iterator[Experiment]:
    for count, tokens in sizes.bursts:
        blocker = Call(prompt=_new(seeds, sizes.blocker), output_tokens=1)
        waiting = [Call(prompt=_new(seeds, tokens), output_tokens=1, delay_s=0.02) for _ in range(count)]
        yield Experiment(name=f"burst {count} x {tokens}", group="burst", calls=(blocker, *waiting))
    for count, tokens in sizes.rushes:
        together = [Call(prompt=_new(seeds, tokens), output_tokens=1) for _ in range(count)]
        yield Experiment(name=f"rush {count} x {tokens}", group="burst", calls=tuple(together))


def _decode(sizes: Sizes, seeds: Iterator[int]) -> Iterator[Experiment]:
    for count, context in sizes.decode:
        calls = [Call(prompt=_new(seeds, context), output_tokens=sizes.decode_tokens) for _ in range(count)]
        yield Experiment(name=f"decode {count} x {context}", group="decode", calls=tuple(calls))
    for count, context in sizes.shared:
        prefix = Segment(next(seeds), context)
        first = Call(prompt=(prefix,), output_tokens=1)
        calls = [
            Call(prompt=(prefix, *_new(seeds, 32)), output_tokens=sizes.decode_tokens, after=(0,)) for _ in range(count)
        ]
        yield Experiment(name=f"decode {count} x {context} shared", group="shared", calls=(first, *calls))


def _mixed(sizes: Sizes, seeds: Iterator[int]) -> Iterator[Experiment]:
    """Prompts that arrive one after another while others decode."""
    for count, context, arriving in sizes.mixed:
        calls = [Call(prompt=_new(seeds, context), output_tokens=sizes.mixed_tokens) for _ in range(count)]
        for tokens in arriving * 3:
            calls.append(
                Call(
                    prompt=_new(seeds, tokens),
                    output_tokens=1,
                    after=tuple(range(len(calls))),
                    after_first=True,
                    delay_s=0.03 + 0.003 * (len(calls) % 7),  # so that arrivals do not keep step with decoding
                )
            )
        yield Experiment(name=f"mixed {count} x {context}", group="mixed", calls=tuple(calls))
