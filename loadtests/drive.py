"""Open-loop replay: requests leave when their trace says, whether or not earlier ones were answered.

Sessions keep their turn order: a turn starts no earlier than its arrival, and no earlier than its pause after the end
of the turn before. Called by comparison.py. Not here: what a call is (stream_client.py), processes (fleet.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from loadtests.answer import Answer
from loadtests.clock import Clock, Sleep
from loadtests.measures import RequestResult
from loadtests.results import Timed, result_of

_Request = TypeVar("_Request", bound=Timed)
Call = Callable[[_Request, str], Awaitable[Answer]]
"""Sends a request; its second argument is the session's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """`rate` multiplies how often sessions arrive and leaves pauses alone. `speed` makes the trace's time run faster
    altogether, to fit workers that run faster; results are given in the trace's time. `max_in_flight` bounds what is
    sent at once: beyond it requests leave late, which their `lag_s` shows.
    """

    rate: float = 1.0
    speed: float = 1.0
    max_in_flight: int = 512


class Drive(Generic[_Request]):
    """One run. `results` grows while it runs, in order of completion, and stays readable when it is cancelled."""

    def __init__(
        self,
        call: Call[_Request],
        pace: Pace,
        *,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        on_result: Callable[[RequestResult], None] | None = None,
    ) -> None:
        self._call = call
        self._pace = pace
        self._clock = clock
        self._sleep = sleep
        self._on_result = on_result
        self._free = asyncio.Semaphore(pace.max_in_flight)
        self._start_s = 0.0
        self.results: list[RequestResult] = []

    async def run(self, requests: Sequence[_Request]) -> list[RequestResult]:
        """Sends all requests and waits for all answers. The first arrival is the start of the run."""
        sessions = sorted(sessions_of(requests), key=lambda session: session[1][0].arrival_s)
        if not sessions:
            return self.results
        self._start_s = self._clock() - self._wall_s(sessions[0][1][0].arrival_s)
        async with asyncio.TaskGroup() as group:
            for name, turns in sessions:
                await self._until(self._arrival(turns[0]))
                group.create_task(self._session(name, turns))
        return self.results

    async def _session(self, name: str, turns: Sequence[_Request]) -> None:
        ended_s = self._start_s
        for index, turn in enumerate(turns):
            due_s = self._arrival(turn)
            if index:
                due_s = max(due_s, ended_s + turn.gap_s / self._pace.speed)
            await self._until(due_s)
            async with self._free:
                answer = await self._call(turn, name)
            ended_s = self._clock()
            self._record(name, turn, due_s, answer)

    def _record(self, name: str, turn: _Request, due_s: float, answer: Answer) -> None:
        result = result_of(
            turn,
            answer,
            name,
            start_s=answer.sent_s - self._start_s,
            lag_s=max(0.0, answer.sent_s - due_s),
            speed=self._pace.speed,
        )
        self.results.append(result)
        if self._on_result is not None:
            self._on_result(result)

    def _wall_s(self, arrival_s: float) -> float:
        return arrival_s / self._pace.rate / self._pace.speed

    def _arrival(self, turn: _Request) -> float:
        return self._start_s + self._wall_s(turn.arrival_s)

    async def _until(self, at_s: float) -> None:
        wait_s = at_s - self._clock()
        if wait_s > 0:
            await self._sleep(wait_s)


def sessions_of(requests: Iterable[_Request]) -> list[tuple[str, list[_Request]]]:
    """Requests by session, in order of first appearance; those without a session are each one of their own."""
    sessions: dict[str, list[_Request]] = {}
    for index, request in enumerate(requests):
        name = f"request-{index}" if request.session_id is None else request.session_id
        sessions.setdefault(name, []).append(request)
    return list(sessions.items())
