"""`GET /explain/{request_id}`: why a request went where it went, as JSON. Called by insight.

Not here: what is written down, and how often (explain), the store (telemetry.recent_requests).
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from router.errors import UnknownRequest
from router.policies.explains import expected_match_tokens
from router.records import Outcome
from router.telemetry.recent_requests import Entry, RecentRequests
from router.telemetry.weighing import Weighing


def explain_routes(store: RecentRequests) -> APIRouter:
    """`GET /explain/{request_id}`; ids may contain slashes, and `last` is the latest request that has ended."""
    routes = APIRouter(tags=["explain"])

    @routes.get("/explain/{request_id:path}")
    async def explain(request_id: str) -> dict[str, Any]:
        entry = store.find(request_id)
        if entry is None and request_id == "last":
            entry = next(iter(store.latest(1)), None)
        if entry is None:
            raise UnknownRequest(
                f"Nothing is known of request {request_id!r}. The last {len(store):,} requests are kept "
                "(explain.keep); the id is in the answer's x-request-id header.",
                param="request_id",
            )
        return explanation(entry)

    return routes


def explanation(entry: Entry) -> dict[str, Any]:
    """What `/explain` says of one request."""
    return {
        "request_id": entry.request_id,
        "state": "ended" if entry.outcome else "running",
        "attempts": [_attempt(weighing) for weighing in entry.weighings],
        "weighed": bool(entry.weighings),
        "outcome": _outcome(entry.outcome) if entry.outcome else None,
    }


def _attempt(weighing: Weighing) -> dict[str, Any]:
    decision = weighing.decision
    return {
        "policy": weighing.policy,
        "arm": weighing.arm,
        "worker": decision.worker,
        "reason": decision.reason.value,
        "expected_match_tokens": expected_match_tokens(decision),
        "expected_ttft_s": decision.expected_ttft_s,
        "expected_wait_s": decision.expected_wait_s,
        "candidates": [
            {
                "worker": each.worker,
                "chosen": each.worker == decision.worker,
                "in_flight": each.in_flight,
                "waiting": each.waiting,
                "match_tokens": round(each.candidate.match_tokens) if each.candidate else None,
                "terms_s": dict(each.candidate.terms_s) if each.candidate else {},
                "cost_s": each.candidate.cost_s if each.candidate and each.candidate.terms_s else None,
            }
            for each in weighing.workers
        ],
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    decision = outcome.decision
    return {
        "endpoint": outcome.endpoint,
        "model": outcome.model,
        "policy": outcome.policy,
        "arm": outcome.arm,
        "worker": outcome.worker,
        "reason": decision.reason.value if decision else None,
        "status": outcome.status,
        "error": outcome.error,
        "attempts": outcome.attempts,
        "expected_match_tokens": expected_match_tokens(decision) if decision else None,
        "cached_tokens": outcome.cached_tokens,
        "prompt_tokens": outcome.prompt_tokens,
        "completion_tokens": outcome.completion_tokens,
        "expected_ttft_s": decision.expected_ttft_s if decision else None,
        "ttft_s": outcome.ttft_s,
        "itl_mean_s": outcome.itl_mean_s,
        "e2e_s": outcome.e2e_s,
        "decision_s": outcome.decision_s,
        "held_s": outcome.held_s,
    }
