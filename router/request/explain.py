"""Why a request went where it went: in its answer's headers, and noted for those who ask afterwards.

`Explainer` writes down how every worker was weighed, as often as its budget allows. Called by request.dispatch. Not
here: the store (telemetry.recent_requests), how it is told afterwards (explain_routes).
"""

from __future__ import annotations

import logging
from math import inf

from router.experiment.choice import Choice
from router.policies.explains import candidates_of
from router.records import Decision, RoutingRequest
from router.telemetry.recent_requests import ExplainConfig, RecentRequests
from router.telemetry.weighing import Weighed, Weighing

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
