"""Outcomes, decisions and keys with everything filled in that a test does not care about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from router.records import Decision, Outcome
from router.types import PromptKey, Reason, RequestId, WorkerId


def key(*blocks: int, unit_tokens: float = 64.0) -> PromptKey:
    return PromptKey(blocks=list(blocks), unit_tokens=unit_tokens, prompt_tokens=len(blocks) * unit_tokens + 10)


def decision(worker: str = "w1", **fields: Any) -> Decision:
    return replace(Decision(worker=WorkerId(worker), reason=Reason.PREFIX), **fields)


def outcome(request_id: str = "r1", **fields: Any) -> Outcome:
    """A good streamed answer from w1 unless `fields` say otherwise."""
    made = Outcome(
        request_id=RequestId(request_id),
        endpoint="/v1/chat/completions",
        at_s=100.0,
        status=200,
        e2e_s=1.5,
        policy="prefix_match",
        model="m",
        decision=decision(),
        decision_s=0.00002,
        attempts=1,
        stream=True,
        ttft_s=0.25,
        itl_mean_s=0.01,
        events=10,
        key=key(1, 2, 3),
        prompt_tokens=200,
        cached_tokens=64,
        completion_tokens=10,
    )
    return replace(made, **fields)
