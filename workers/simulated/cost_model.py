"""Seconds per engine step, from counts of tokens: a frozen set of named parameters and the arithmetic over them.

The defaults are fitted to one H200 (see H200_QWEN3_8B). Reading and writing parameter files: cost_file.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import NamedTuple


class PrefillChunk(NamedTuple):
    """One request's share of a prefill step: tokens to compute, and tokens before them whose KV is there."""

    new_tokens: int
    context_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """Parameters in seconds. Raises ValueError, naming the field, for one that is negative or not finite, and for steps
    that take no time at all.

    A prefill step takes `prefill_step_s`, plus `prefill_token_s` for each new token, plus attention. Attention of new
    tokens among themselves costs `prefill_attention_s` for each pair (half of the square). Attention to the context
    costs the same for each pair, but no less than `prefill_context_s` for each token of the longest context, because
    few new tokens cannot fill the GPU.

    Before a request can join a step, the server's front end reads it, one request after another (a single process, as
    SGLang's tokenizer manager is): `front_end_request_s`, plus `front_end_token_s` for each prompt token, plus
    `front_end_text_token_s` for each token that must be made from text. `front_end_latency_s` more pass between a
    client and the engine, there and back, and hold nobody up. See front_end.py.

    A decode step takes `decode_step_base_s`, plus `decode_request_s` for each request, plus `decode_context_s` for each
    token of KV that it reads.
    """

    prefill_step_s: float
    prefill_token_s: float
    prefill_attention_s: float
    prefill_context_s: float
    decode_step_base_s: float
    decode_request_s: float
    decode_context_s: float
    front_end_latency_s: float = 0.0
    front_end_request_s: float = 0.0
    front_end_token_s: float = 0.0
    front_end_text_token_s: float = 0.0
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

    def prefill_s(self, chunks: Iterable[PrefillChunk]) -> float:
        """Seconds of one prefill step over `chunks`, one per request."""
        tokens = 0
        inner = 0.0
        pairs = 0
        longest = 0
        for new, context in chunks:
            tokens += new
            inner += new * new / 2
            pairs += new * context
            longest = max(longest, context)
        attention = inner * self.prefill_attention_s + max(
            pairs * self.prefill_attention_s, longest * self.prefill_context_s
        )
        return self.prefill_step_s + tokens * self.prefill_token_s + attention

    def decode_step_s(self, batch: int, context_tokens: int) -> float:
        """Seconds of one decode step of `batch` requests with `context_tokens` of KV in all."""
        return self.decode_step_base_s + batch * self.decode_request_s + context_tokens * self.decode_context_s

    def decode_s(self, batch: int, context_tokens: int, steps: int) -> float:
        """Seconds of `steps` decode steps in a row; the context grows by `batch` tokens with each."""
        grown = batch * steps * (steps - 1) // 2
        return steps * self.decode_step_s(batch, context_tokens) + grown * self.decode_context_s

    def decode_steps_until(self, batch: int, context_tokens: int, seconds: float) -> int:
        """The fewest decode steps in a row, at least one, that take `seconds` or longer."""
        first = self.decode_step_s(batch, context_tokens)
        growth = batch * self.decode_context_s
        # seconds = steps * first + growth * steps * (steps - 1) / 2, solved for steps
        linear = first - growth / 2
        root = math.sqrt(max(0.0, linear * linear + 2 * growth * max(0.0, seconds)))
        steps = max(1, math.ceil(2 * max(0.0, seconds) / (linear + root)))
        if steps > 1 and self.decode_s(batch, context_tokens, steps - 1) >= seconds:
            return steps - 1  # rounding
        return steps


PARAMETERS = tuple(field.name for field in fields(CostModel) if field.name.endswith("_s"))
"""The names of the parameters that are seconds; the other fields say where they come from."""
OPTIONAL = tuple(name for name in PARAMETERS if name.startswith("front_end_"))
"""Those that a file may leave out."""
_STEPS = ("prefill_step_s", "decode_step_base_s")

H200_QWEN3_8B = CostModel(
    prefill_step_s=0.01131,
    prefill_token_s=1.954e-5,
    prefill_attention_s=3.417e-9,
    prefill_context_s=3.875e-6,
    decode_step_base_s=0.005237,
    decode_request_s=3.336e-5,
    # 147,456 bytes of KV a token (36 layers, 8 heads of 128, keys and values, 2 bytes) at the H200's 4.8 TB/s.
    decode_context_s=3.07e-8,
    model="Qwen3-8B shape, dummy weights",
    hardware="1 x NVIDIA H200",
    sglang_version="0.5.17",
    source=(
        "least squares of relative errors over measured TTFT (2,025, 8,044 and 16,100 tokens, uncached and cached) and "
        "decode steps (1, 8, 32, 64, 128 requests with short contexts), triton attention; largest error 5 %; "
        "decode_context_s is derived from memory bandwidth, not measured"
    ),
)
"""The default."""
