"""SMG's cache_aware policy, to compare with what many run today.

Source: lightseekorg/smg 1.9.0, model_gateway/src/policies/cache_aware.rs and the string tree that it uses for HTTP
workers, crates/kv_index/src/string_tree.rs, whose "last tenant" of a node is the one that created it and stays it;
defaults of the command line of smg 1.13.0 and sglang-router 0.3.2. Written from the algorithm; blocks of the prompt key
stand for characters of text. Differences: a worker that left is forgotten (1.9.0 keeps it in its tree), and every use
counts for eviction (there one of eight).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from router.knob import knob, require
from router.prefix.block_sizes import units_until
from router.prefix.recent_blocks import RecentBlocks
from router.records import Decision, Dispatched, FleetEvent, RoutingRequest
from router.types import CacheCleared, Reason, WorkerId, WorkerLeft, Workers, WorkerView


@dataclass(frozen=True, slots=True, kw_only=True)
class SmgCacheAwareConfig:
    cache_threshold: float = knob(0.3, "share of the prompt that must match for the match to be followed")
    balance_abs_threshold: int = knob(64, "load is uneven when requests in flight differ by more than this ...")
    balance_rel_threshold: float = knob(1.5, "... and the most is more than this many times the least")
    eviction_interval_s: float = knob(60.0, "seconds between evictions")
    max_tree_tokens: int = knob(16_777_216, "prompt tokens remembered per worker (2^26 characters at 4 per token)")

    def __post_init__(self) -> None:
        require(0.0 <= self.cache_threshold <= 1.0, "cache_threshold must be between 0 and 1")
        require(self.balance_abs_threshold >= 0, "balance_abs_threshold must not be negative")
        require(self.balance_rel_threshold >= 1.0, "balance_rel_threshold must be at least 1")
        require(self.eviction_interval_s > 0, "eviction_interval_s must be above 0")
        require(self.max_tree_tokens >= 1, "max_tree_tokens must be at least 1")


class SmgCacheAware:
    """Load counts requests. A match is followed to the worker that was sent it first, however busy below the gate."""

    def __init__(self, config: SmgCacheAwareConfig, rng: Random) -> None:
        del rng  # ties go to the first (with uneven load, to the one that has had the fewest requests)
        self._config = config
        self._tenants: dict[WorkerId, RecentBlocks] = {}
        self._owners: dict[int, WorkerId] = {}  # block -> who was sent it first
        self._processed: Counter[WorkerId] = Counter()
        self._uses = 0
        self._evict_at_s: float | None = None

    def select(self, request: RoutingRequest, workers: Workers) -> Decision:
        """Uneven load or a short match: the fewest in flight; else the owner of the match. O(workers x log blocks)."""
        loads = [worker.in_flight for worker in workers]
        least, most = min(loads), max(loads)
        config = self._config
        if most - least > config.balance_abs_threshold and most > config.balance_rel_threshold * least:
            least_loaded = min(workers, key=lambda worker: (worker.in_flight, self._processed[worker.id]))
            return self._decide(least_loaded, Reason.LEAST_LOADED, request)
        depth, owner = self._match(request)
        if units_until(depth) * request.key.unit_tokens > config.cache_threshold * request.key.prompt_tokens:
            chosen = next((worker for worker in workers if worker.id == owner), workers[0])
            return self._decide(chosen, Reason.PREFIX, request)
        first_of_least = min(workers, key=lambda worker: worker.in_flight)
        return self._decide(first_of_least, Reason.NO_PREFIX, request)

    def observe(self, event: FleetEvent) -> None:
        """Remember what was dispatched where, and evict when it is time."""
        match event:
            case Dispatched():
                self._uses += 1
                worker = event.decision.worker
                self._processed[worker] += 1
                self._tenants.setdefault(worker, RecentBlocks()).insert(event.request.key.blocks, self._uses)
                for block in event.request.key.blocks:
                    self._owners.setdefault(block, worker)
                self._evict(event)
            case WorkerLeft():
                self._tenants.pop(event.worker, None)
                self._processed.pop(event.worker, None)
            case CacheCleared():
                self._tenants.pop(event.worker, None)

    def index_blocks(self) -> Mapping[WorkerId, int]:
        """Blocks remembered per worker."""
        return {worker: len(stored) for worker, stored in self._tenants.items()}

    def _match(self, request: RoutingRequest) -> tuple[int, WorkerId | None]:
        """The deepest match among all workers, and the owner of its last block."""
        blocks = request.key.blocks
        deepest, holder = 0, None
        for worker, stored in self._tenants.items():
            depth = stored.match(blocks)
            if depth > deepest:
                deepest, holder = depth, worker
        if deepest == 0:
            return 0, None
        owner = self._owners.get(blocks[deepest - 1])
        owned = self._tenants.get(owner) if owner is not None else None
        if owned is None or owned.mark(blocks[deepest - 1]) is None:
            return deepest, holder  # the owner has lost it: anyone who holds it
        return deepest, owner

    def _decide(self, worker: WorkerView, reason: Reason, request: RoutingRequest) -> Decision:
        stored = self._tenants.get(worker.id)
        depth = 0 if stored is None else stored.match(request.key.blocks)
        match_tokens = units_until(depth) * request.key.unit_tokens
        return Decision(worker=worker.id, reason=reason, match_blocks=depth, match_tokens=match_tokens)

    def _evict(self, event: Dispatched) -> None:
        if self._evict_at_s is None:
            self._evict_at_s = event.at_s + self._config.eviction_interval_s
        if event.at_s < self._evict_at_s:
            return
        self._evict_at_s = event.at_s + self._config.eviction_interval_s
        capacity_units = max(1, int(self._config.max_tree_tokens / max(1.0, event.request.key.unit_tokens)))
        gone = sum(stored.trim_units(capacity_units) for stored in self._tenants.values())
        if gone:
            self._owners = {
                block: owner
                for block, owner in self._owners.items()
                if owner in self._tenants and self._tenants[owner].mark(block) is not None
            }
