"""The leader's table of workers as rows, and how another process makes its own table the same. Called by replica.

A row says everything about a worker that is not counted per process. The leader alone judges; the others follow.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from router.fleet.breaker import BreakerState
from router.fleet.registry import Registry
from router.fleet.server_info import ServerFacts
from router.fleet.worker import Worker, WorkerState
from router.types import WorkerId

Row = tuple[Any, ...]


def row_of(worker: Worker) -> Row:
    """Compared with the one sent before it, so it holds values only."""
    vitals = worker.vitals
    breaker = vitals.breaker
    return (
        worker.id,
        vitals.joined_s,
        worker.server,
        worker.rank,
        worker.base_url,
        tuple(worker.extra_headers),
        worker.state.value,
        worker.state_reason,
        worker.state_since_s,
        worker.warm_from_s,
        worker.was_unreachable,
        worker.facts,
        worker.facts_stale,
        worker.reports_cached,
        worker.models,
        worker.model_cards,
        (vitals.failures, vitals.refused, vitals.stalled, vitals.why),
        (breaker.state.value, breaker.trial_at_s, breaker.doublings, breaker.last),
    )


class Follower:
    """Keeps `registry` as the leader's is."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._joined_s: dict[str, float] = {}

    def members(self, ids: Collection[WorkerId]) -> None:
        """Exactly these workers exist; rows of new ones have been taken."""
        wanted = set(ids)
        for worker in self._registry.all():
            if worker.id not in wanted:
                self._registry.remove(worker)
                self._joined_s.pop(worker.id, None)

    def take(self, row: list[Any]) -> None:
        """What the leader says of one worker."""
        name, joined_s, server, rank, base_url, headers = row[:6]
        headers = tuple((key, value) for key, value in headers)
        worker = self._registry.find(WorkerId(name))
        if worker is not None and (worker.base_url != base_url or self._joined_s.get(name, joined_s) != joined_s):
            self._registry.remove(worker)  # it left and came back
            worker = None
        if worker is None:
            worker = self._registry.take_in(server, base_url, rank, headers)
        self._joined_s[name] = worker.vitals.joined_s = joined_s
        worker.extra_headers = headers
        self._take_state(worker, row[6:])

    def _take_state(self, worker: Worker, row: list[Any]) -> None:
        state, reason, since_s, warm_from_s, was_unreachable, facts, stale, cached, models, cards, vital, broken = row
        registry = self._registry
        registry.set_models(worker, tuple(cards))
        worker.models = None if models is None else frozenset(models)
        worker.facts = None if facts is None else msgspec.convert(facts, ServerFacts)
        worker.facts_stale, worker.reports_cached, worker.was_unreachable = stale, cached, was_unreachable
        vitals, breaker = worker.vitals, worker.vitals.breaker
        vitals.failures, vitals.refused, vitals.stalled, vitals.why = vital
        breaker.follow(BreakerState(broken[0]), broken[1], broken[2], broken[3])
        registry.set_state(worker, WorkerState(state), reason, followed=True)
        worker.state_reason, worker.state_since_s, worker.warm_from_s = reason, since_s, warm_from_s
        registry.needs_care()
