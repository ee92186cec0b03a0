"""The JSON that the dashboard polls: fleet, traffic, prefixes, decisions, predictions, experiment, shadows.

Derived from what the registry and the readers of Outcomes keep. One answer is kept for a second and shared by everybody
who looks, so that ten open dashboards cost what one does. Called by dashboard.routes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from router.clock import Clock
from router.dashboard.prefix_map import Branch, hot_branches, served_share, walk
from router.experiment.desk import ExperimentDesk
from router.experiment.shadow import Shadow
from router.fleet.admin import worker_view
from router.fleet.registry import Registry
from router.fleet.worker import Worker
from router.policies import Policy
from router.policies.explains import candidates_of, expected_match_tokens
from router.policies.remembers import index_blocks_of
from router.prefix.block_sizes import units_until
from router.records import Outcome, RoutingRequest
from router.telemetry.recent_requests import Entry, RecentRequests
from router.telemetry.traffic import STEP_S, Traffic, quantiles
from router.types import RequestId, WorkerId

KEPT_S = 1.0
REPORT_KEPT_S = 5.0
DECISIONS = 40
POINTS = 300
PREFIX_REQUESTS = 400
SHARES = (0.5, 0.9, 0.99)


class Kept:
    """A value that is made anew when it is asked for and older than `for_s`."""

    def __init__(self, make: Callable[[], Any], for_s: float, clock: Clock) -> None:
        self._make = make
        self._for_s = for_s
        self._clock = clock
        self._value: Any = None
        self._made_s: float | None = None

    def get(self) -> Any:
        now_s = self._clock()
        if self._made_s is None or now_s - self._made_s >= self._for_s:
            self._value, self._made_s = self._make(), now_s
        return self._value


class DashboardViews:
    """`policy` is the live one; `version` and `policy_name` are shown as they are."""

    def __init__(
        self,
        *,
        registry: Registry,
        recent: RecentRequests,
        traffic: Traffic,
        desk: ExperimentDesk,
        shadows: Sequence[Shadow],
        policy: Policy,
        policy_name: str,
        version: str,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._recent = recent
        self._traffic = traffic
        self._desk = desk
        self._shadows = shadows
        self._policy = policy
        self._policy_name = policy_name
        self._version = version
        self._clock = clock
        self._started_s = clock()
        self._page = Kept(self._make, KEPT_S, clock)
        self._report = Kept(desk.now, REPORT_KEPT_S, clock)

    def page(self) -> dict[str, Any]:
        """Everything the page shows, at most a second old."""
        page: dict[str, Any] = self._page.get()
        return page

    def _make(self) -> dict[str, Any]:
        return {
            "version": self._version,
            "policy": self._policy_name,
            "uptime_s": round(self._clock() - self._started_s, 1),
            "workers": [self._worker(worker) for worker in self._registry.all()],
            "traffic": {"step_s": STEP_S, "points": self._points()},
            "prefixes": self._prefixes(),
            "decisions": [_decision(entry, self._clock()) for entry in self._recent.latest(DECISIONS)],
            "predictions": self._predictions(),
            "experiment": {
                "running": self._report.get() if self._desk.running else None,
                "past": list(self._desk.past),
            },
            "shadows": [shadow.view() for shadow in self._shadows],
        }

    def _worker(self, worker: Worker) -> dict[str, Any]:
        minute = self._traffic.last_minute(worker.id)
        known = index_blocks_of(self._policy)
        return {
            **worker_view(worker, self._clock()),
            "index_blocks": known.get(worker.id, 0) if known else None,
            "minute": {
                "requests": minute.requests,
                "failed": minute.failed,
                "hit_ratio": minute.cached_tokens / minute.prompt_tokens if minute.prompt_tokens else None,
                "ttft_p50_s": quantiles(minute.ttft, (0.5,))[0],
            },
        }

    def _points(self) -> list[dict[str, Any]]:
        points = []
        for ago_s, step in self._traffic.series():
            p50, p90, p99 = quantiles(step.ttft, SHARES)
            points.append(
                {
                    "ago_s": ago_s, "requests": step.requests, "failed": step.failed,
                    "ttft_p50_s": p50, "ttft_p90_s": p90, "ttft_p99_s": p99,
                    "hit_ratio": step.cached_tokens / step.prompt_tokens if step.prompt_tokens else None,
                }
            )  # fmt: skip
        return points

    def _predictions(self) -> dict[str, list[list[Any]]]:
        """[expected, actual, worker] of recent requests: cached tokens, and TTFT in seconds."""
        match: list[list[Any]] = []
        ttft: list[list[Any]] = []
        for outcome in list(self._recent.outcomes())[-POINTS:]:
            decision = outcome.decision
            if decision is None or not outcome.ok:
                continue
            if outcome.cached_tokens is not None:
                expected = expected_match_tokens(decision)
                if expected is not None:
                    match.append([expected, outcome.cached_tokens, decision.worker])
            ttft_s = outcome.ttft_after_hold_s
            if decision.expected_ttft_s is not None and ttft_s is not None:
                ttft.append([round(decision.expected_ttft_s, 5), round(ttft_s, 5), decision.worker])
        return {"match": match, "ttft": ttft}

    # -- prefixes -----------------------------------------------------------------------------------------------

    def _prefixes(self) -> dict[str, Any]:
        outcomes = list(self._recent.outcomes())[-PREFIX_REQUESTS:]
        workers = [worker for worker in self._registry.all() if worker.takes_requests]
        roots = hot_branches(outcomes)
        held = {id(branch): self._held(branch, workers) for branch in walk(roots)}
        return {
            "requests": len(outcomes),
            "source": "index" if any(found is not None for found in held.values()) else "served",
            "roots": [_branch(branch, held) for branch in roots],
        }

    def _held(self, branch: Branch, workers: list[Worker]) -> dict[WorkerId, float] | None:
        """The share of a branch that each worker holds, as the live policy believes; None when it keeps no index."""
        key = branch.outcomes[0].key
        if key is None or not workers:
            return None
        tokens = units_until(branch.end) * key.unit_tokens
        asked = RoutingRequest(
            request_id=RequestId("dashboard"),
            endpoint=branch.outcomes[0].endpoint,
            model=branch.outcomes[0].model,
            key=replace(key, blocks=branch.blocks, prompt_tokens=tokens),
            at_s=self._clock(),
        )
        candidates = candidates_of(self._policy, asked, workers)
        if candidates is None:
            return None
        before = units_until(branch.start) * key.unit_tokens
        return {
            each.worker: round(min(1.0, max(0.0, (each.match_tokens - before) / (tokens - before))), 3)
            for each in candidates
        }


def _branch(branch: Branch, held: dict[int, dict[WorkerId, float] | None]) -> dict[str, Any]:
    key = branch.outcomes[0].key
    assert key is not None
    believed = held[id(branch)]
    latest = branch.outcomes[-1]
    return {
        "hash": f"{branch.blocks[-1]:016x}"[:8],
        "start_tokens": round(units_until(branch.start) * key.unit_tokens),
        "end_tokens": round(units_until(branch.end) * key.unit_tokens),
        "requests": branch.requests,
        "model": latest.model,
        "endpoint": latest.endpoint,
        "latest": latest.request_id,
        "workers": served_share(branch) if believed is None else believed,
        "children": [_branch(child, held) for child in branch.children],
    }


def _decision(entry: Entry, now_s: float) -> dict[str, Any]:
    outcome = entry.outcome
    assert outcome is not None
    decision = outcome.decision
    return {
        "request_id": outcome.request_id,
        "ago_s": round(now_s - outcome.at_s, 1),
        "endpoint": outcome.endpoint,
        "worker": outcome.worker,
        "reason": decision.reason.value if decision else None,
        "policy": outcome.policy,
        "arm": outcome.arm,
        "status": outcome.status,
        "error": outcome.error,
        "attempts": outcome.attempts,
        "prompt_tokens": _prompt_tokens(outcome),
        "expected_match_tokens": expected_match_tokens(decision) if decision else None,
        "cached_tokens": outcome.cached_tokens,
        "expected_ttft_s": decision.expected_ttft_s if decision else None,
        "ttft_s": outcome.ttft_s,
        "e2e_s": outcome.e2e_s,
    }


def _prompt_tokens(outcome: Outcome) -> int | None:
    if outcome.prompt_tokens is not None:
        return outcome.prompt_tokens
    return round(outcome.key.prompt_tokens) if outcome.key else None
