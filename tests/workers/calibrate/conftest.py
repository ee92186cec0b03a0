"""A server's facts, and a model that differs from the default, for tests of calibration."""

from __future__ import annotations

from dataclasses import replace

import pytest

from workers.calibrate.server_facts import ServerFacts
from workers.simulated.cost_model import H200_QWEN3_8B, CostModel


@pytest.fixture
def facts() -> ServerFacts:
    """One H200."""
    return ServerFacts(
        model="m",
        hardware="1 x H200",
        sglang_version="0.5.21",
        kv_capacity_tokens=699_103,
        max_prompt_tokens=40_000,
        chunked_prefill_tokens=8192,
        max_prefill_tokens=16_384,
        max_running_requests=4096,
        page_size=1,
        schedule_policy="fcfs",
        overlap=True,
        prefill_sizes=H200_QWEN3_8B.prefill_sizes,
    )


@pytest.fixture
def other_model() -> CostModel:
    """A server that is not the one where the search for parameters begins."""
    return replace(
        H200_QWEN3_8B,
        prefill_step_s=0.009,
        prefill_token_s=1.5e-5,
        prefill_attention_s=4e-9,
        prefill_context_pair_s=2.5e-9,
        prefill_far_pair_s=3e-9,
        prefill_context_s=1.5e-6,
        decode_step_base_s=0.007,
        decode_request_s=3e-5,
        decode_context_s=4e-8,
        decode_longest_s=2.5e-7,
        decode_shared_s=1e-8,
        plan_s=0.0021,
        front_end_latency_s=0.0018,
        front_end_request_s=0.0002,
        front_end_token_s=2e-7,
        front_end_text_token_s=3e-6,
    )
