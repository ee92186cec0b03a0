"""Experiments on a virtual clock: who waits for whom, and that the engine's own times come out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from workers.calibrate.experiment import Call, Experiment
from workers.calibrate.prompts import Segment
from workers.calibrate.virtual_runner import VirtualRunner, requests_of
from workers.simulated.cost_model import H200_QWEN3_8B, PrefillChunk
from workers.simulated.engine_config import EngineConfig

CONFIG = EngineConfig(kv_capacity_tokens=50_000)


def experiment(*calls: Call) -> Experiment:
    return Experiment(name="x", group="load", calls=calls)


def prompt(seed: int, tokens: int) -> tuple[Segment, ...]:
    return (Segment(seed, tokens),)


async def test_a_prompt_alone_takes_the_front_end_and_its_prefill() -> None:
    model = replace(H200_QWEN3_8B, front_end_text_token_s=1e-5)
    for text in (False, True):
        call = Call(prompt=prompt(1, 1000), output_tokens=1, text=text)
        run = await VirtualRunner(model, CONFIG).run(experiment(call))
        token_s = model.front_end_token_s + (1e-5 if text else 0)
        front_s = model.front_end_latency_s + model.front_end_request_s + 1000 * token_s
        assert run.timings[0].ttft_s == pytest.approx(front_s + model.prefill_s([PrefillChunk(1000, 0)]))


async def test_a_call_waits_for_the_end_or_the_first_token_of_others() -> None:
    calls = (
        Call(prompt=prompt(1, 100), output_tokens=20),
        Call(prompt=prompt(2, 100), output_tokens=1, after=(0,), delay_s=0.5),
        Call(prompt=prompt(3, 100), output_tokens=1, after=(0, 1), after_first=True, delay_s=0.25),
    )
    timings = (await VirtualRunner(H200_QWEN3_8B, CONFIG).run(experiment(*calls))).timings
    assert timings[1].sent_s == pytest.approx(timings[0].token_s[-1] + 0.5)
    assert timings[2].sent_s == pytest.approx(timings[1].token_s[0] + 0.25)


def test_given_moments_of_sending_replace_all_waiting() -> None:
    calls = (Call(prompt=prompt(1, 100), output_tokens=20), Call(prompt=prompt(2, 100), output_tokens=2, after=(0,)))
    runner = VirtualRunner(H200_QWEN3_8B, CONFIG)
    run = runner.replay(experiment(*calls), requests_of(calls, 1), [0.3, 0.01])
    assert [timing.sent_s for timing in run.timings] == [0.3, 0.01]
    assert run.timings[1].token_s[-1] < run.timings[0].token_s[0]


async def test_the_cache_lives_on_without_a_flush_and_is_empty_after_one() -> None:
    runner = VirtualRunner(H200_QWEN3_8B, CONFIG)
    call = Call(prompt=prompt(1, 500), output_tokens=1)
    kept = replace(experiment(call), flush=False)
    assert [(await runner.run(kept)).timings[0].cached_tokens for _ in range(2)] == [0, 499]
    assert (await runner.run(experiment(call))).timings[0].cached_tokens == 0


async def test_a_call_that_can_never_run_fails_and_holds_nobody_up() -> None:
    calls = (
        Call(prompt=prompt(1, 60_000), output_tokens=1),
        Call(prompt=prompt(2, 10), output_tokens=1, after=(0,)),
    )
    timings = (await VirtualRunner(H200_QWEN3_8B, CONFIG).run(experiment(*calls))).timings
    assert "exceed the KV capacity" in str(timings[0].error)
    assert timings[1].error is None
    assert len(timings[1].token_s) == 1
