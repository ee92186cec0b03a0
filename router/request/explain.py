"""Why a request went where it went: in its answer's headers, and afterwards at `/explain/{request_id}`.

`Explainer` writes down how every worker was weighed, as often as its budget allows; `explanation` spells an entry of
the store as JSON. Called by request.dispatch and app. Not here: the store (telemetry.recent_requests).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from typing import Any

from fastapi import APIRouter

from router.errors import UnknownRequest
from router.experiment.choice import Choice
from router.policies.explains import candidates_of, expected_match_tokens
from router.records import Decision, Outcome, RoutingRequest
from router.telemetry.recent_requests import Entry, ExplainConfig, RecentRequests
from router.telemetry.weighing import Weighed, Weighing
from router.types import RequestId

log = logging.getLogger(__name__)

BURST_S = 1.0
"""After a pause so much of the budget may be used at once."""


def explain_headers(decision: Decision) -> list[tuple[bytes, bytes]]:
    """`x-trieway-*` headers of one decision: worker, reason, expected match in tokens, expected TTFT in seconds."""
    headers = [
        (b"x-trieway-worker", decision.worker.encode("latin-1", "replace")),
        (b"x-trieway-reason", decision.reason.value.encode()),
        (b"x-trieway-match-tokens", f"{decision.match_tokens:.0f}".encode()),
    ]
    if decision.expected_ttft_s is not None:
        headers.append((b"x-trieway-expected-ttft-s", f"{decision.expected_ttft_s:.4f}".encode()))
    return headers


class Explainer:
    """Weighs the workers once more for the record, at most `weigh_per_s` times a second unless a client asks."""

    def __init__(self, config: ExplainConfig, store: RecentRequests) -> None:
        self._store = store
        self._gap_s = 1.0 / config.weigh_per_s if config.weigh_per_s > 0 else inf
        self._due_s = -inf if config.weigh_per_s > 0 else inf
        self.told: Callable[[RequestId, Weighing], None] | None = None  # hears what is written down

    def decided(self, request: RoutingRequest, choice: Choice, *, asked: bool) -> None:
        """Note the decision and its candidates. Must be called before the policy observes the dispatch."""
        if not asked:
            if self._due_s > request.at_s:
                return
            self._due_s = max(self._due_s, request.at_s - BURST_S + self._gap_s / 2) + self._gap_s
        workers = choice.workers
        try:
            candidates = candidates_of(choice.policy, request, workers) or (None,) * len(workers)
        except Exception:  # an explanation that fails must not cost the request it explains
            log.exception("policy %s could not weigh request %s", choice.policy_name, request.request_id)
            return
        weighed = tuple(
            Weighed(
                worker=worker.id,
                in_flight=worker.in_flight,
                waiting=worker.load.waiting if worker.load is not None else None,
                candidate=candidate,
            )
            for worker, candidate in zip(workers, candidates, strict=True)
        )
        weighing = Weighing(policy=choice.policy_name, arm=choice.arm, decision=choice.decision, workers=weighed)
        self._store.decided(request.request_id, weighing)
        if self.told is not None:
            self.told(request.request_id, weighing)


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
