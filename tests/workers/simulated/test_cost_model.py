"""The default cost model against the measurements it was fitted to, and its arithmetic."""

from __future__ import annotations

import math
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from workers.simulated.cost_model import H200_QWEN3_8B, PARAMETERS, DecodeLoad, PrefillChunk

# Measured on one H200, SGLang 0.5.17, Qwen3-8B's shape: (cached, new) tokens, then seconds in the engine.
PREFILL_S = {
    (0, 128): 0.00754, (0, 512): 0.01362, (0, 2048): 0.05051, (0, 8192): 0.26626, (0, 16_384): 0.75299,
    (0, 30_000): 2.42712, (1024, 64): 0.00925, (4096, 1024): 0.04003, (8192, 2048): 0.10806, (16_384, 64): 0.04498,
    (16_384, 4096): 0.40977, (28_000, 64): 0.07198, (28_000, 2000): 0.30842,
}  # fmt: skip
# Requests and tokens of context of each, then seconds of a decode step.
DECODE_S = {
    (1, 128): 0.00500, (8, 128): 0.00533, (32, 128): 0.00573, (64, 128): 0.00602, (128, 128): 0.00716,
    (1, 16_000): 0.01167, (1, 30_000): 0.01760, (4, 16_000): 0.01161, (16, 8000): 0.01252, (64, 4096): 0.02047,
    (128, 2048): 0.02159,
}  # fmt: skip


@pytest.mark.parametrize(("tokens", "measured_s"), PREFILL_S.items())
def test_a_prefill_is_within_6_percent_of_the_measurement(tokens: tuple[int, int], measured_s: float) -> None:
    cached, new = tokens
    starts = range(0, new, 8192)
    chunks = [PrefillChunk(min(8192, new - start), cached + start) for start in starts]
    assert sum(H200_QWEN3_8B.prefill_s([chunk]) for chunk in chunks) == pytest.approx(measured_s, rel=0.06)


@pytest.mark.parametrize(("load", "measured_s"), DECODE_S.items())
def test_a_decode_step_is_within_4_percent_of_the_measurement(load: tuple[int, int], measured_s: float) -> None:
    requests, tokens = load
    context = tokens + 32  # the middle of the measured run
    modelled_s = H200_QWEN3_8B.decode_step_s(DecodeLoad(requests, requests * context, context))
    assert modelled_s == pytest.approx(measured_s, rel=0.04)


LOADS = st.builds(
    lambda requests, context, longest, shared: DecodeLoad(requests, context, longest, shared % (context + 1)),
    st.integers(1, 300),
    st.integers(0, 700_000),
    st.integers(0, 40_000),
    st.integers(0, 700_000),
)


@given(load=LOADS, steps=st.integers(1, 500))
def test_decode_steps_in_a_row_cost_what_they_cost_one_by_one(load: DecodeLoad, steps: int) -> None:
    one_by_one = math.fsum(H200_QWEN3_8B.decode_step_s(load.after(done)) for done in range(steps))
    assert H200_QWEN3_8B.decode_s(load, steps) == pytest.approx(one_by_one)


@given(load=LOADS, seconds=st.floats(-1.0, 100.0), context_s=st.sampled_from([0.0, 1e-9, 3e-8]))
def test_the_steps_until_a_moment_are_the_fewest_that_reach_it(
    load: DecodeLoad, seconds: float, context_s: float
) -> None:
    model = replace(H200_QWEN3_8B, decode_context_s=context_s)
    steps = model.decode_steps_until(load, seconds)
    assert steps >= 1
    assert model.decode_s(load, steps) >= seconds
    assert steps == 1 or model.decode_s(load, steps - 1) < seconds


def test_chunks_share_a_step_and_long_contexts_are_read_side_by_side() -> None:
    one, two = PrefillChunk(1, 16_000), PrefillChunk(1, 8_000)
    assert H200_QWEN3_8B.prefill_s([one, two]) == pytest.approx(H200_QWEN3_8B.prefill_s([one]), rel=1e-3)


def test_a_step_computes_for_the_next_recorded_size_and_beyond_the_last_for_what_it_is() -> None:
    model = replace(H200_QWEN3_8B, prefill_sizes=(4, 100), prefill_attention_s=0.0)

    def seconds(tokens: int) -> float:
        return model.prefill_s([PrefillChunk(tokens, 0)])

    assert seconds(5) == seconds(100)
    assert seconds(4) < seconds(5)
    assert seconds(101) > seconds(100)


def test_kv_that_is_shared_costs_less_to_read() -> None:
    own = DecodeLoad(64, 512_000, 8000)
    shared = own._replace(shared_tokens=500_000)
    assert H200_QWEN3_8B.decode_step_s(shared) < H200_QWEN3_8B.decode_step_s(own)


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf])
def test_a_parameter_that_is_no_duration_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        replace(H200_QWEN3_8B, **{name: value})


@pytest.mark.parametrize("name", ["prefill_step_s", "decode_step_base_s"])
def test_a_step_that_takes_no_time_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="above 0"):
        replace(H200_QWEN3_8B, **{name: 0.0})
