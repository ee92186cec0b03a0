"""From an answer to the record that everything measures, and what an absent count of cached tokens means.

Called by drive.py and locust_metrics.py. Not here: the figures (measures.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from loadtests.answer import Answer
from loadtests.measures import RequestResult


class Timed(Protocol):
    """What pacing and records need to know of a request; LoadRequest and BlockRequest have it."""

    @property
    def session_id(self) -> str | None:
        """None: a session of its own."""
        ...

    @property
    def turn(self) -> int: ...
    @property
    def arrival_s(self) -> float: ...
    @property
    def gap_s(self) -> float: ...
    @property
    def workload(self) -> str: ...


def result_of(
    request: Timed, answer: Answer, session_id: str, *, start_s: float, lag_s: float, speed: float = 1.0
) -> RequestResult:
    """The record of one call; all its times multiplied by `speed`."""
    usage = answer.usage
    return RequestResult(
        session_id=session_id,
        turn=request.turn,
        workload=request.workload,
        start_s=start_s * speed,
        lag_s=lag_s * speed,
        ttft_s=None if answer.ttft_s is None else answer.ttft_s * speed,
        gaps_s=answer.gaps_s if speed == 1 else tuple(gap_s * speed for gap_s in answer.gaps_s),
        e2e_s=answer.e2e_s * speed,
        prompt_tokens=None if usage is None else usage.prompt_tokens,
        cached_tokens=answer.cached_tokens,
        completion_tokens=None if usage is None else usage.completion_tokens,
        worker=answer.worker,
        error=answer.error,
        error_detail=answer.error_detail,
    )


def settle_cached_tokens(results: Sequence[RequestResult]) -> list[RequestResult]:
    """Results in which a missing count of cached tokens is zero, if any answer of the run carries one.

    SGLang with --enable-cache-report leaves the count out where nothing was cached; without the flag it never gives
    one, and then the counts stay unknown.
    """
    if not any(result.cached_tokens is not None for result in results):
        return list(results)
    return [
        replace(result, cached_tokens=0)
        if result.prompt_tokens is not None and result.cached_tokens is None
        else result
        for result in results
    ]
