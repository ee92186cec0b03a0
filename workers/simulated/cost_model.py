"""Seconds per engine step, from counts of tokens: a frozen set of named parameters and the arithmetic over them.

The defaults are fitted to one H200 (see H200_QWEN3_8B). Reading and writing parameter files: cost_file.py.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import NamedTuple


class PrefillChunk(NamedTuple):
    """One request's share of a prefill step: tokens to compute, and tokens before them whose KV is there."""

    new_tokens: int
    context_tokens: int


class DecodeLoad(NamedTuple):
    """What a decode step works on: requests, tokens of KV that they read in all, those of the longest, and how many of
    all are read again because requests share them.
    """

    requests: int
    context_tokens: int
    longest_tokens: int
    shared_tokens: int = 0

    def after(self, steps: int) -> DecodeLoad:
        """The load when each request has so many tokens more."""
        more = self.requests * steps
        return DecodeLoad(self.requests, self.context_tokens + more, self.longest_tokens + steps, self.shared_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """Parameters in seconds. Raises ValueError, naming the field, for one that is negative or not finite, and for steps
    that take no time at all.

    A prefill step computes for `prefill_token_s` a new token, and for `prefill_step_s` at least; near that floor the
    two overlap, as the root of the sum of their squares. Tokens are rounded up to one of `prefill_sizes`, for which the
    server has recorded its work (CUDA graphs), where there is a larger one. To this come `prefill_attention_s` for each
    pair of new tokens of one request (half of the square), and attention to the context: `prefill_context_pair_s` for
    each pair of a new token and one of the context, `prefill_far_pair_s` more where the context is longer than
    FAR_TOKENS; but no less than `prefill_context_s` for each token of the longest context, because few new tokens
    cannot fill the GPU.

    A decode step takes `decode_step_base_s`, plus `decode_request_s` for each request, plus `decode_context_s` for each
    token of KV that it reads, but for these no less than `decode_longest_s` for each token of the longest context. KV
    that requests share costs `decode_shared_s` a token from the second reader on (the GPU's cache helps).

    With overlap, the scheduler plans a step `plan_s` after the one before it has started, when it has launched that and
    processed the results of the one before: what has arrived by then can join.

    Before a request can join a step, the server's front end reads it, one request after another (a single process, as
    SGLang's tokenizer manager is): `front_end_request_s`, plus `front_end_token_s` for each prompt token, plus
    `front_end_text_token_s` for each token that must be made from text. `front_end_latency_s` more pass between a
    client and the engine, there and back, and hold nobody up. See front_end.py.
    """

    prefill_step_s: float
    prefill_token_s: float
    prefill_attention_s: float
    prefill_context_pair_s: float
    prefill_context_s: float
    decode_step_base_s: float
    decode_request_s: float
    decode_context_s: float
    prefill_far_pair_s: float = 0.0
    decode_longest_s: float = 0.0
    decode_shared_s: float = 0.0
    plan_s: float = 0.0
    front_end_latency_s: float = 0.0
    front_end_request_s: float = 0.0
    front_end_token_s: float = 0.0
    front_end_text_token_s: float = 0.0
    prefill_sizes: tuple[int, ...] = ()
    model: str = ""
    hardware: str = ""
    sglang_version: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        for name in PARAMETERS:
            value = getattr(self, name)
            least = "above 0" if name in _STEPS else "at least 0"
            if not math.isfinite(value) or value < 0 or (value == 0 and name in _STEPS):
                raise ValueError(f"{name} must be a finite number of seconds, {least}, got {value}")
        if any(size < 1 for size in self.prefill_sizes) or sorted(set(self.prefill_sizes)) != [*self.prefill_sizes]:
            raise ValueError(f"prefill_sizes must be numbers of tokens in ascending order, got {self.prefill_sizes}")

    def prefill_s(self, chunks: Iterable[PrefillChunk]) -> float:
        """Seconds of one prefill step over `chunks`, one per request."""
        tokens = longest = 0
        inner_s = outer_s = 0.0
        for new, context in chunks:
            tokens += new
            inner_s += new * new / 2 * self.prefill_attention_s
            far_s = self.prefill_far_pair_s if context > FAR_TOKENS else 0.0
            outer_s += new * context * (self.prefill_context_pair_s + far_s)
            longest = max(longest, context)
        larger = bisect_left(self.prefill_sizes, tokens)
        if larger < len(self.prefill_sizes):
            tokens = self.prefill_sizes[larger]
        compute_s = math.hypot(self.prefill_step_s, tokens * self.prefill_token_s)
        return compute_s + inner_s + max(outer_s, longest * self.prefill_context_s)

    def decode_step_s(self, load: DecodeLoad) -> float:
        """Seconds of one decode step."""
        attention_s = max(self._read_s(load), load.longest_tokens * self.decode_longest_s)
        return self.decode_step_base_s + load.requests * self.decode_request_s + attention_s

    def decode_s(self, load: DecodeLoad, steps: int) -> float:
        """Seconds of `steps` decode steps in a row; each context grows by a token with each."""
        fixed_s = self.decode_step_base_s + load.requests * self.decode_request_s
        all_s = (self._read_s(load), load.requests * self.decode_context_s)
        longest_s = (load.longest_tokens * self.decode_longest_s, self.decode_longest_s)
        return steps * fixed_s + _sum_of_larger(all_s, longest_s, steps)

    def decode_steps_until(self, load: DecodeLoad, seconds: float) -> int:
        """The fewest decode steps in a row, at least one, that take `seconds` or longer."""
        low, high = 0, max(1, math.ceil(seconds / self.decode_step_s(load)) + 1)  # none is shorter than the first
        while low + 1 < high:
            middle = (low + high) // 2
            if self.decode_s(load, middle) >= seconds:
                high = middle
            else:
                low = middle
        return high

    def _read_s(self, load: DecodeLoad) -> float:
        own = load.context_tokens - load.shared_tokens
        return own * self.decode_context_s + load.shared_tokens * self.decode_shared_s


def _sum_of_larger(one: tuple[float, float], other: tuple[float, float], steps: int) -> float:
    """The sum of the larger of two straight lines, (value at 0, growth), at 0, 1, ... `steps` - 1."""
    flat, steep = sorted((one, other), key=lambda line: line[1])
    if steep[1] <= flat[1]:
        before = 0 if steep[0] >= flat[0] else steps
    else:  # until the steep line is above
        before = min(steps, max(0, math.ceil((flat[0] - steep[0]) / (steep[1] - flat[1]))))
    return _sum_of_line(flat, 0, before) + _sum_of_line(steep, before, steps)


def _sum_of_line(line: tuple[float, float], start: int, stop: int) -> float:
    return (stop - start) * line[0] + (stop - start) * (start + stop - 1) / 2 * line[1]


FAR_TOKENS = 12_000
"""Where a context stops to be near: a layer's KV of 12,000 tokens of Qwen3-8B's shape fills the 50 MB of an H200's L2
cache. A pair of a new token and one of the context costs 3.5 ns up to 11,103 tokens of context, and a third more from
12,207 on (measured).
"""
PARAMETERS = tuple(field.name for field in fields(CostModel) if field.name.endswith("_s"))
"""The names of the parameters that are seconds; the other fields say where they come from."""
OPTIONAL = tuple(field.name for field in fields(CostModel) if field.name in PARAMETERS and field.default == 0.0)
"""Those that a file may leave out."""
_STEPS = ("prefill_step_s", "decode_step_base_s")

H200_QWEN3_8B = CostModel(
    prefill_step_s=0.006675,
    prefill_token_s=2.207e-05,
    prefill_attention_s=2.553e-09,
    prefill_context_pair_s=3.505e-09,
    prefill_far_pair_s=1.081e-09,
    prefill_context_s=2.372e-06,
    decode_step_base_s=0.005108,
    decode_request_s=7.536e-06,
    decode_context_s=5.753e-08,
    decode_longest_s=4.166e-07,
    decode_shared_s=2.99e-08,
    plan_s=0.003575,
    front_end_latency_s=0.004226,
    front_end_request_s=0.0004694,
    front_end_token_s=4.998e-08,
    front_end_text_token_s=9.871e-07,
    prefill_sizes=(
        *range(4, 33, 4), *range(48, 257, 16), *range(288, 513, 32), *range(576, 1025, 64), *range(1280, 4097, 256),
        *range(4608, 8193, 512),
    ),
    model="Qwen3-8B shape, dummy weights",
    hardware="1 x NVIDIA H200",
    sglang_version="0.5.17",
    source=(
        "trieway workers calibrate, 2026-11-21: 96 figures, relative error of the median 1.1%, largest 19.0%; triton "
        "attention; all times 1% longer and decode_shared_s from a comparison under load"
    ),
)  # fmt: skip
"""The default; cost_models/h200-qwen3-8b.toml is the same as a file."""
