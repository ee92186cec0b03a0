"""The pooled cache and the ideal fleet, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtests.replay import ReplayConfig
from loadtests.replay_ideal import ideal
from loadtests.replay_source import ReplayTraffic, traffic_of
from loadtests.traces import BlockRequest
from workers.simulated.cost_model import H200_QWEN3_8B, PARAMETERS, PrefillChunk

MODEL = replace(
    H200_QWEN3_8B,
    **{**dict.fromkeys(PARAMETERS, 0.0), "prefill_step_s": 1.0, "decode_step_base_s": 0.4, "decode_request_s": 0.1,
       "prefill_token_s": 0.01},
)


def traffic(*prompts: tuple[int, ...], output: int = 1) -> ReplayTraffic:
    return traffic_of(
        [
            BlockRequest(arrival_s=10.0 * index, prompt_tokens=512 * len(blocks), output_tokens=output, blocks=blocks)
            for index, blocks in enumerate(prompts)
        ]
    )


def test_the_pooled_cache_has_the_fleet_s_total_size_and_forgets_the_least_recent() -> None:
    prompts = traffic((1, 2), (3, 4), (1, 2), (5, 6), (3, 4))

    tight = ideal(prompts, ReplayConfig(workers=2, capacity_tokens=1024, cost_model=MODEL))
    roomy = ideal(prompts, ReplayConfig(workers=3, capacity_tokens=1024, cost_model=MODEL))

    # a whole prompt that is cached still computes its last token
    assert tight.token_hit_ratio == pytest.approx(1023 / 5120)
    assert roomy.token_hit_ratio == pytest.approx(2 * 1023 / 5120)


def test_work_is_prefill_in_chunks_and_decode_in_full_batches() -> None:
    prompts = traffic((1, 2, 3), (7,), output=11)
    config = ReplayConfig(workers=1, capacity_tokens=4000, chunked_prefill_tokens=1024, cost_model=MODEL)
    mean_tokens = (11 * (1536 + 5.5) + 11 * (512 + 5.5)) / 22
    share = 0.4 / int(4000 / mean_tokens) + 0.1

    prefill_s = sum(MODEL.prefill_s((PrefillChunk(*chunk),)) for chunk in ((1024, 0), (512, 1024), (512, 0)))

    best = ideal(prompts, config)

    assert best.work_s == pytest.approx(prefill_s + 2 * 10 * share)
    assert best.span_s == 10.0


def test_rate_and_busy_share_are_inverse_and_more_workers_are_less_busy() -> None:
    prompts = traffic((1, 2), (3, 4))
    one, four = (ideal(prompts, ReplayConfig(workers=workers, cost_model=MODEL)) for workers in (1, 4))

    assert one.busy_share(one.rate(0.75)) == pytest.approx(0.75)
    assert four.busy_share(1.0) == pytest.approx(one.busy_share(1.0) / 4)


def test_a_trace_that_comes_all_at_once_has_no_load_to_scale() -> None:
    request = BlockRequest(arrival_s=3.0, prompt_tokens=100, output_tokens=1)

    with pytest.raises(ValueError, match="all requests arrive at the same time"):
        ideal(traffic_of([request, request]), ReplayConfig())
