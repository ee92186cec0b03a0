"""A rank keeps the engine's time on the wall clock, and one answer for every way a generation can end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from workers.simulated.cost_model import CostModel
from workers.simulated.errors import Aborted
from workers.simulated.generation import Generation
from workers.simulated.metrics import RankMetrics
from workers.simulated.options import Options
from workers.simulated.rank import Rank
from workers.simulated.writer import Plan

STEP_S = 0.01
COSTS = CostModel(
    prefill_step_s=STEP_S,
    prefill_token_s=0.0,
    prefill_attention_s=0.0,
    prefill_context_pair_s=0.0,
    prefill_context_s=0.0,
    decode_step_base_s=STEP_S,
    decode_request_s=0.0,
    decode_context_s=0.0,
)


def generation(rid: str, *, prompt: Sequence[int] = (1, 2, 3), tokens: int = 5, listener: Any = None) -> Generation:
    plan = Plan(tokens=list(range(tokens)), text="word" * tokens, finish_reason={"type": "length", "length": tokens})
    return Generation(
        rid=rid,
        prompt=prompt,
        plan=plan,
        namespace=(None, None, None),
        rank=0,
        limit_tokens=tokens,
        arrived_s=0.0,
        listener=listener,
    )


class Running:
    """A rank whose task a test may stop."""

    def __init__(self, **given: Any) -> None:
        self.metrics = RankMetrics()
        self.rank = Rank(Options(cost_model=COSTS, **{"speed": 10.0, **given}), 0, self.metrics, None)
        self.task = asyncio.ensure_future(self.rank.run())

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    here = Running()
    yield here
    await here.stop()


async def test_a_listener_hears_of_every_token_and_of_the_end_once(running: Running) -> None:
    seen: list[tuple[int, bool]] = []
    one = generation("a", listener=lambda it: seen.append((it.produced, it.finish_reason is not None)))
    running.rank.submit(one)
    async with asyncio.timeout(30):
        await one.result()
    assert seen == [(1, False), (2, False), (3, False), (4, False), (5, True)]
    assert one.finish_reason == {"type": "length", "length": 5}
    assert one.text == "word" * 5
    assert running.rank.idle


async def test_steps_take_the_modelled_time_divided_by_the_speed_and_do_not_drift(running: Running) -> None:
    """200 steps of 1 ms each: rounding of timers to whole milliseconds must not add up."""
    one = generation("a", tokens=200)
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    running.rank.submit(one)
    async with asyncio.timeout(30):
        await one.result()
    assert loop.time() - started_s >= 0.99 * 200 * STEP_S / 10.0  # never faster than the model


async def test_an_abort_ends_a_generation_at_once_and_only_once(running: Running) -> None:
    ended: list[str] = []
    one = generation("a", tokens=10_000, listener=lambda it: ended.append(it.rid) if it.finish_reason else None)
    running.rank.submit(one)
    async with asyncio.timeout(30):
        while one.produced < 3:
            await asyncio.sleep(0.001)
    running.rank.abort(one)
    assert one.finish_reason is not None
    assert one.finish_reason["type"] == "abort"
    assert running.rank.idle
    produced = one.produced
    running.rank.abort(one)
    another = generation("b")
    running.rank.submit(another)
    async with asyncio.timeout(30):
        await another.result()
    assert (one.produced, ended) == (produced, ["a"])
    assert running.metrics.aborted == 1


async def test_a_server_side_refusal_is_raised_to_who_waits() -> None:
    one = generation("a")
    one.finish({"type": "abort", "message": "no room", "status_code": 503}, 0.0)
    with pytest.raises(Aborted, match="no room"):
        await one.result()


async def test_an_idle_rank_wakes_for_a_late_request(running: Running) -> None:
    for number in range(3):
        await asyncio.sleep(0.02)
        one = generation(str(number))
        running.rank.submit(one)
        async with asyncio.timeout(30):
            await one.result()
    assert running.metrics.requests == 3


async def test_a_restart_forgets_the_cache_and_goes_on(running: Running) -> None:
    for expected in (0, 99):
        one = generation("a", prompt=list(range(100)))
        running.rank.submit(one)
        await one.result()
        assert one.cached_tokens == expected
    running.rank.restart()
    one = generation("a", prompt=list(range(100)))
    running.rank.submit(one)
    await one.result()
    assert one.cached_tokens == 0


async def test_unused_cache_can_be_dropped_while_a_request_runs(running: Running) -> None:
    done = generation("done", prompt=list(range(100)))
    running.rank.submit(done)
    await done.result()
    busy = generation("busy", prompt=list(range(200, 300)), tokens=10_000)
    running.rank.submit(busy)
    async with asyncio.timeout(30):
        while busy.produced < 1:
            await asyncio.sleep(0.001)
    assert not running.rank.flush_cache()
    running.rank.drop_unused_cache()
    again = generation("again", prompt=list(range(100)))
    running.rank.submit(again)
    await again.result()
    assert again.cached_tokens == 0
    assert running.metrics.evicted_tokens >= 100
    running.rank.abort(busy)


async def test_a_machine_that_cannot_keep_up_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """The wall clock is made to run away: a listener that blocks."""
    here = Running(speed=10_000.0)
    try:
        here.rank._note_lag(0.5, 100.0)
        assert not caplog.records
        with caplog.at_level(logging.WARNING):
            for now_s in (101.0, 102.0, 112.0):
                here.rank._note_lag(2.0, now_s)
        assert len(caplog.records) == 2  # not for every step
        assert "2.0 s behind" in caplog.text
        assert here.rank.lag_s == 2.0
    finally:
        await here.stop()
