"""production-stack's prefixaware routing as a policy: anyone of those that hold the deepest match. No load term.

Source: vllm-project/production-stack a6c01db, src/vllm_router/routers/routing_logic.py and prefix/hashtrie.py. Written
from the published algorithm; the prompt key's blocks stand for its chunks of 128 characters. Difference: the index is
bounded (there it grows without end, their issues 687 and 711).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from router.knob import knob, require
from router.policies.ties import smallest
from router.prefix.block_sizes import units_until
from router.prefix.recent_blocks import RecentBlocks
from router.records import Decision, Dispatched, FleetEvent, RoutingRequest
from router.types import CacheCleared, Reason, WorkerId, WorkerLeft, Workers

QPS_WINDOW_S = 60.0
"""Requests per second are counted over this many seconds (there: --request-stats-window)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductionStackPrefixConfig:
    min_match_tokens: int = knob(0, "below this match the worker with the fewest requests per second is taken")
    capacity_blocks: int = knob(4_194_304, "prompt blocks remembered per worker")

    def __post_init__(self) -> None:
        require(self.min_match_tokens >= 0, "min_match_tokens must not be negative")
        require(self.capacity_blocks >= 1, "capacity_blocks must be at least 1")


class ProductionStackPrefix:
    def __init__(self, config: ProductionStackPrefixConfig, rng: Random) -> None:
        self._config = config
        self._rng = rng
        self._index: dict[WorkerId, RecentBlocks] = {}
        self._recent: dict[WorkerId, deque[float]] = {}
        self._now_s = 0.0

    def select(self, request: RoutingRequest, workers: Workers) -> Decision:
        """Pick at random among the deepest matches (all workers, where nothing matches). O(workers x log blocks)."""
        blocks = request.key.blocks
        depths = [self._index[one.id].match(blocks) if one.id in self._index else 0 for one in workers]
        deepest = max(depths)
        if units_until(deepest) * request.key.unit_tokens < self._config.min_match_tokens:
            index = smallest([self._sent_lately(worker.id) for worker in workers], self._rng)
            reason = Reason.LEAST_LOADED
        else:
            index = self._rng.choice([i for i, depth in enumerate(depths) if depth == deepest])
            reason = Reason.PREFIX if deepest else Reason.NO_PREFIX
        return Decision(
            worker=workers[index].id,
            reason=reason,
            match_blocks=depths[index],
            match_tokens=units_until(depths[index]) * request.key.unit_tokens,
        )

    def observe(self, event: FleetEvent) -> None:
        """Remember what was dispatched where and when."""
        match event:
            case Dispatched():
                worker = event.decision.worker
                stored = self._index.setdefault(worker, RecentBlocks())
                stored.insert(event.request.key.blocks, event.at_s)
                stored.trim(self._config.capacity_blocks)
                self._now_s = max(self._now_s, event.at_s)
                times = self._recent.setdefault(worker, deque())
                times.append(event.at_s)
                while times[0] < self._now_s - QPS_WINDOW_S:
                    times.popleft()
            case WorkerLeft():
                self._index.pop(event.worker, None)
                self._recent.pop(event.worker, None)
            case CacheCleared():
                self._index.pop(event.worker, None)

    def index_blocks(self) -> Mapping[WorkerId, int]:
        """Blocks remembered per worker."""
        return {worker: len(stored) for worker, stored in self._index.items()}

    def _sent_lately(self, worker: WorkerId) -> int:
        return sum(at_s >= self._now_s - QPS_WINDOW_S for at_s in self._recent.get(worker, ()))
