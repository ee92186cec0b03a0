"""The same traffic through one policy after another, or through a server that runs already.

The recipe: fleet, then per policy a fresh router over flushed caches, a replay, a summary. Called by the commands.
Not here: how processes start (fleet.py), pacing (drive.py), printing (table.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import httpx

from loadtests.answer import Answer
from loadtests.block_text import BlockTexts
from loadtests.drive import Drive, Pace
from loadtests.endpoint import served_model, worker_ids
from loadtests.fleet import FleetPlan, LocalFleet
from loadtests.load_request import LoadRequest
from loadtests.measures import Objective, RequestResult, Summary, summarize
from loadtests.results import settle_cached_tokens
from loadtests.stream_client import ChatClient, client_session
from loadtests.traces import BlockRequest, Trace


class Watcher(Protocol):
    """Told how a comparison goes, for people to see."""

    def begin(self, name: str, requests: int) -> None:
        """A run starts."""
        ...

    def result(self, result: RequestResult) -> None:
        """A request ended."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What is sent and how. `seed` makes the text of traces that have none. Waits at most `timeout_s` per call."""

    requests: Trace
    pace: Pace = field(default_factory=Pace)
    seed: int = 0
    model: str | None = None
    api_key: str | None = None
    timeout_s: float = 600.0
    objective: Objective | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One pass of the traffic. `workers` are the ids of the fleet, where it tells; `complete` is False when the run
    was interrupted, and then `results` holds what had ended.
    """

    name: str
    results: Sequence[RequestResult]
    workers: Sequence[str]
    summary: Summary
    complete: bool


Guard: TypeAlias = Callable[[Awaitable[Sequence[RequestResult]]], Awaitable[Sequence[RequestResult]]]


async def compare(
    traffic: Traffic, policies: Sequence[str], plan: FleetPlan, watcher: Watcher, runs: list[Run]
) -> None:
    """Appends one run per policy to `runs`, also when it is cancelled. Raises ChildExited or TargetError."""
    async with LocalFleet.running(plan) as fleet:
        for policy in policies:
            async with fleet.router(policy) as url:
                await run_against(traffic, policy, url, watcher, runs, guard=fleet.guard)


async def run_against(
    traffic: Traffic, name: str, url: str, watcher: Watcher, runs: list[Run], *, guard: Guard | None = None
) -> None:
    """Appends the run of `traffic` through the server at `url`, also when it is cancelled. Raises TargetError."""
    async with httpx.AsyncClient(trust_env=False, headers=_authorization(traffic)) as control:
        model = traffic.model or await served_model(control, url)
        workers = await worker_ids(control, url)
    requests = traffic.requests
    watcher.begin(name, len(requests))
    async with _sender(traffic, url, model) as send:
        drive: Drive[LoadRequest | BlockRequest] = Drive(send, traffic.pace, on_result=watcher.result)
        complete = False
        try:
            work = drive.run(requests)
            await (work if guard is None else guard(work))
            complete = True
        finally:
            if drive.results:
                results = settle_cached_tokens(drive.results)
                summary = summarize(results, workers=workers, objective=traffic.objective)
                runs.append(Run(name=name, results=results, workers=workers, summary=summary, complete=complete))


@asynccontextmanager
async def _sender(
    traffic: Traffic, url: str, model: str
) -> AsyncIterator[Callable[[LoadRequest | BlockRequest, str], Awaitable[Answer]]]:
    """How one request of the traffic is sent."""
    texts = BlockTexts(traffic.seed)
    async with client_session(timeout_s=traffic.timeout_s) as session:
        client = ChatClient(session, url, headers=_authorization(traffic))

        async def send(request: LoadRequest | BlockRequest, session_id: str) -> Answer:
            if isinstance(request, BlockRequest):
                request = texts.load_request(request, session_id)
            return await client.call(request.body(model), session_id=session_id)

        yield send


def _authorization(traffic: Traffic) -> dict[str, str]:
    return {} if traffic.api_key is None else {"authorization": f"Bearer {traffic.api_key}"}
