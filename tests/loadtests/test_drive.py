from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import pytest

from loadtests.answer import Answer
from loadtests.chat_events import Usage
from loadtests.drive import Drive, Pace
from loadtests.measures import ErrorKind, RequestResult
from loadtests.traces import BlockRequest

Clock: TypeAlias = Callable[[], float]
Run: TypeAlias = Callable[[Callable[[Clock], Coroutine[Any, Any, Any]]], Any]


def request(session: str | None, turn: int = 0, arrival_s: float = 0.0, gap_s: float = 0.0) -> BlockRequest:
    return BlockRequest(
        session_id=session, turn=turn, arrival_s=arrival_s, gap_s=gap_s, prompt_tokens=8, output_tokens=1
    )


def driving(
    requests: list[BlockRequest], pace: Pace | None = None, *, answer_s: float = 1.0, error: ErrorKind | None = None
) -> Callable[[Clock], Coroutine[Any, Any, list[RequestResult]]]:
    """Work for run_jumping: every answer takes `answer_s`, its first output half of that."""

    async def work(clock: Clock) -> list[RequestResult]:
        async def call(_request: BlockRequest, _session: str) -> Answer:
            sent_s = clock()
            await asyncio.sleep(answer_s)
            usage = Usage(prompt_tokens=8, completion_tokens=3)
            return Answer(
                sent_s=sent_s, e2e_s=answer_s, ttft_s=answer_s / 2, gaps_s=(answer_s / 4,), usage=usage, error=error
            )

        return await Drive(call, pace or Pace(), clock=clock).run(requests)

    return work


def starts(results: list[RequestResult]) -> dict[tuple[str, int], float]:
    return {(one.session_id, one.turn): one.start_s for one in results}


def test_sessions_start_at_their_arrivals_whether_or_not_others_were_answered(run_jumping: Run) -> None:
    results = run_jumping(driving([request("a", arrival_s=5.0), request("b", arrival_s=5.5)], answer_s=100.0))
    assert starts(results) == {("a", 0): 5.0, ("b", 0): 5.5}


def test_a_turn_waits_for_the_turn_before_and_its_pause_or_for_its_own_arrival(run_jumping: Run) -> None:
    turns = [request("a"), request("a", 1, gap_s=2.0), request("a", 2, arrival_s=10.0, gap_s=2.0)]
    assert starts(run_jumping(driving(turns))) == {("a", 0): 0.0, ("a", 1): 3.0, ("a", 2): 10.0}


def test_a_failed_turn_does_not_end_its_session(run_jumping: Run) -> None:
    results = run_jumping(driving([request("a"), request("a", 1)], error=ErrorKind.TIMEOUT))
    assert [(one.turn, one.error) for one in results] == [(0, ErrorKind.TIMEOUT), (1, ErrorKind.TIMEOUT)]


def test_the_rate_scales_arrivals_and_leaves_pauses(run_jumping: Run) -> None:
    turns = [request("a"), request("a", 1, gap_s=2.0), request("b", arrival_s=8.0)]
    assert starts(run_jumping(driving(turns, Pace(rate=4.0)))) == {("a", 0): 0.0, ("a", 1): 3.0, ("b", 0): 2.0}


def test_speed_runs_everything_faster_and_reports_in_the_traces_time(run_jumping: Run) -> None:
    """At speed 10 an answer of 0.1 s stands for one of a second."""
    turns = [request("a"), request("a", 1, gap_s=2.0), request("b", arrival_s=8.0)]
    results = run_jumping(driving(turns, Pace(speed=10.0), answer_s=0.1))
    assert starts(results) == {("a", 0): 0.0, ("a", 1): pytest.approx(3.0), ("b", 0): pytest.approx(8.0)}
    one = results[0]
    assert (one.e2e_s, one.ttft_s, one.gaps_s[0]) == pytest.approx((1.0, 0.5, 0.25))


def test_beyond_the_bound_requests_leave_late_and_say_so(run_jumping: Run) -> None:
    results = run_jumping(driving([request("a"), request("b"), request("c")], Pace(max_in_flight=1)))
    assert sorted(one.lag_s for one in results) == [0.0, 1.0, 2.0]


def test_requests_without_a_session_are_each_one_of_their_own(run_jumping: Run) -> None:
    results = run_jumping(driving([request(None), request(None)]))
    assert starts(results) == {("request-0", 0): 0.0, ("request-1", 0): 0.0}


def test_results_stay_when_the_run_is_cancelled(run_jumping: Run) -> None:
    async def work(clock: Clock) -> list[RequestResult]:
        async def call(one: BlockRequest, _session: str) -> Answer:
            sent_s = clock()
            await asyncio.sleep(one.prompt_tokens)
            return Answer(sent_s=sent_s, e2e_s=1.0)

        slow = BlockRequest(arrival_s=0.0, prompt_tokens=1000, output_tokens=1)
        drive = Drive(call, Pace(), clock=clock)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(20):
                await drive.run([request("a"), slow])
        return drive.results

    assert [one.session_id for one in run_jumping(work)] == ["a"]
