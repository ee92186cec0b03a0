"""The default cost model against the measurements it was fitted to, and its arithmetic."""

from __future__ import annotations

import math
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from workers.simulated.cost_model import H200_QWEN3_8B, PARAMETERS, PrefillChunk

# Measured on one H200, SGLang 0.5.17, Qwen3-8B's shape: prompt tokens, then seconds to the first token.
UNCACHED_TTFT_S = {2_025: 0.058, 8_044: 0.278, 16_100: 0.782}
CACHED_TTFT_S = {2_025: 0.019, 8_044: 0.044, 16_100: 0.072}
DECODE_STEP_S = {1: 0.0051, 8: 0.0058, 32: 0.0062, 64: 0.0074, 128: 0.0095}


def chunked_s(tokens: int) -> float:
    starts = range(0, tokens, 8192)
    return sum(H200_QWEN3_8B.prefill_s([PrefillChunk(min(8192, tokens - start), start)]) for start in starts)


@pytest.mark.parametrize(("tokens", "measured_s"), UNCACHED_TTFT_S.items())
def test_uncached_ttft_is_within_1_percent_of_the_measurement(tokens: int, measured_s: float) -> None:
    assert chunked_s(tokens) == pytest.approx(measured_s, rel=0.01)


@pytest.mark.parametrize(("tokens", "measured_s"), CACHED_TTFT_S.items())
def test_cached_ttft_is_within_4_percent_of_the_measurement(tokens: int, measured_s: float) -> None:
    assert H200_QWEN3_8B.prefill_s([PrefillChunk(1, tokens - 1)]) == pytest.approx(measured_s, rel=0.04)


@pytest.mark.parametrize(("batch", "measured_s"), DECODE_STEP_S.items())
def test_a_decode_step_is_within_6_percent_of_the_measurement(batch: int, measured_s: float) -> None:
    assert H200_QWEN3_8B.decode_step_s(batch, 0) == pytest.approx(measured_s, rel=0.06)


@given(batch=st.integers(1, 300), context=st.integers(0, 700_000), steps=st.integers(1, 500))
def test_decode_steps_in_a_row_cost_what_they_cost_one_by_one(batch: int, context: int, steps: int) -> None:
    one_by_one = math.fsum(H200_QWEN3_8B.decode_step_s(batch, context + done * batch) for done in range(steps))
    assert H200_QWEN3_8B.decode_s(batch, context, steps) == pytest.approx(one_by_one)


@given(
    batch=st.integers(1, 300),
    context=st.integers(0, 700_000),
    seconds=st.floats(-1.0, 100.0),
    context_s=st.sampled_from([0.0, 1e-9, 3e-8]),
)
def test_the_steps_until_a_moment_are_the_fewest_that_reach_it(
    batch: int, context: int, seconds: float, context_s: float
) -> None:
    model = replace(H200_QWEN3_8B, decode_context_s=context_s)
    steps = model.decode_steps_until(batch, context, seconds)
    assert steps >= 1
    assert model.decode_s(batch, context, steps) >= seconds
    assert steps == 1 or model.decode_s(batch, context, steps - 1) < seconds


def test_chunks_share_a_step_and_long_contexts_are_read_side_by_side() -> None:
    one, two = PrefillChunk(1, 16_000), PrefillChunk(1, 8_000)
    together_s = H200_QWEN3_8B.prefill_s([one, two])
    longest_s = H200_QWEN3_8B.prefill_s([one])
    assert together_s == pytest.approx(longest_s + H200_QWEN3_8B.prefill_token_s, rel=1e-3)


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf])
def test_a_parameter_that_is_no_duration_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        replace(H200_QWEN3_8B, **{name: value})


@pytest.mark.parametrize("name", ["prefill_step_s", "decode_step_base_s"])
def test_a_step_that_takes_no_time_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="above 0"):
        replace(H200_QWEN3_8B, **{name: 0.0})
