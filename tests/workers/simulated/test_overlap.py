"""The overlapped scheduler: each step is planned while the one before it runs, and so knows less."""

from __future__ import annotations

from dataclasses import replace

import pytest

from workers.simulated.cost_model import H200_QWEN3_8B, DecodeLoad
from workers.simulated.engine import Engine, StepKind
from workers.simulated.engine_config import EngineConfig
from workers.simulated.request import EngineRequest

MODEL = replace(H200_QWEN3_8B, plan_s=0.001)


def engine(*, overlap: bool = True) -> Engine:
    return Engine(EngineConfig(overlap=overlap), MODEL)


def request(rid: str, tokens: int, output_tokens: int, first: int = 0) -> EngineRequest:
    return EngineRequest.of_tokens(
        rid=rid, prompt=range(first, first + tokens), output=[0] * output_tokens, page_size=1
    )


@pytest.mark.parametrize(("overlap", "kinds"), [(False, "pdp"), (True, "pddp")])
def test_what_arrives_during_a_step_joins_the_next_one_or_with_overlap_the_one_after_it(
    overlap: bool, kinds: str
) -> None:
    one = engine(overlap=overlap)
    one.submit(request("a", 100, 50), 0.0)
    now_s = one.step(0.0).duration_s
    second = one.step(now_s)
    one.submit(request("b", 100, 50, first=5000), now_s + 0.002)  # later than the next step was planned
    now_s += second.duration_s
    steps = [StepKind.PREFILL, second.kind]
    while steps[-1] is not StepKind.PREFILL or len(steps) == 2:
        step = one.step(now_s)
        now_s += step.duration_s
        steps.append(step.kind)
    assert "".join(kind.value[0] for kind in steps) == kinds


def test_what_arrives_before_the_next_step_is_planned_joins_that() -> None:
    one = engine()
    one.submit(request("a", 100, 50), 0.0)
    now_s = one.step(0.0).duration_s
    second = one.step(now_s)
    one.submit(request("b", 100, 50, first=5000), now_s + 0.0009)  # within plan_s of the step's start
    assert one.step(now_s + second.duration_s).kind is StepKind.PREFILL


@pytest.mark.parametrize(("overlap", "cached"), [(False, 1000), (True, 0)])
def test_a_prompt_cannot_be_matched_by_what_was_planned_while_it_was_read(overlap: bool, cached: int) -> None:
    one = engine(overlap=overlap)
    one.submit(request("a", 1000, 5), 0.0)
    first = one.step(0.0)
    one.submit(request("b", 1200, 5), 0.0005)  # begins with all of a's prompt
    (output,) = one.step(first.duration_s).outputs
    assert (output.rid, output.cached_tokens) == ("b", cached)


def test_one_step_later_it_can() -> None:
    one = engine()
    one.submit(request("a", 1000, 5), 0.0)
    now_s = one.step(0.0).duration_s
    one.submit(request("b", 1200, 5), now_s)
    now_s += one.step(now_s).duration_s
    (output,) = one.step(now_s).outputs
    assert (output.rid, output.cached_tokens) == ("b", 1000)


def test_when_all_have_ended_one_more_decode_step_runs_in_vain() -> None:
    one = engine()
    one.submit(request("a", 100, 1), 0.0)
    first = one.step(0.0)
    assert first.outputs[0].finished
    assert one.idle
    one.submit(request("b", 100, 1, first=5000), first.duration_s)
    vain = one.step(first.duration_s)
    assert (vain.kind, vain.outputs) == (StepKind.DECODE, ())
    assert vain.duration_s == pytest.approx(MODEL.decode_step_s(DecodeLoad(1, 100, 100)))
    assert one.step(first.duration_s + vain.duration_s).outputs[0].rid == "b"


def test_after_a_pause_nothing_is_in_the_way() -> None:
    one = engine()
    one.submit(request("a", 100, 1), 0.0)
    one.step(0.0)
    one.submit(request("b", 100, 1, first=5000), 1.0)
    assert one.step(1.0).outputs[0].rid == "b"


def test_a_request_that_has_not_been_seen_yet_counts_as_waiting_and_can_be_aborted() -> None:
    one = engine()
    one.submit(request("a", 100, 50), 0.0)
    one.step(0.0)
    one.submit(request("b", 200, 50, first=5000), 0.005)
    assert (one.load().waiting, one.load().waiting_tokens) == (1, 200)
    assert one.abort("b")
    assert one.load().waiting == 0


@pytest.mark.parametrize("runs", [False, True])
def test_when_the_last_request_is_aborted_nothing_stays_locked_in_the_cache(runs: bool) -> None:
    """The other one ended in the step before; its KV would be freed in the next, which does not come."""
    one = engine()
    one.submit(request("ends", 100, 2), 0.0)
    if runs:
        one.submit(request("hangs up", 100, 50, first=5000), 0.0)
    now_s = one.step(0.0).duration_s
    if not runs:
        one.submit(request("hangs up", 100, 50, first=5000), now_s + 0.002)  # too late for the next step
    one.step(now_s)
    one.abort("hangs up")

    assert one.idle
    assert one.flush_cache()
    assert one.memory.free_pages == one.memory.capacity_pages
