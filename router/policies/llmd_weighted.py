"""llm-d's default scheduling profile as a policy: a weighted sum of scores for queue, KV usage and prefix.

Source: llm-d/llm-d-inference-scheduler v0.8.0, pkg/epp/config/loader/defaults.go (weights) and approximateprefix/ (its
index of 31,250 blocks of 16 tokens per pod, of which at most 256 are looked at). Written from the published algorithm:

    score = queue_weight * q + kv_weight * (1 - KV usage) + prefix_weight * matched / total      the highest wins

where q is 1 for the shortest queue and 0 for the longest. llm-d reads queue and KV usage from its pods every 50 ms;
here the queue is what a reading would show, the requests sent that have had no first token, and KV usage is that of the
worker's last load report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from router.knob import knob, require
from router.policies.ties import smallest
from router.prefix.block_sizes import depth_within, units_until
from router.prefix.recent_blocks import RecentBlocks
from router.records import Decision, Dispatched, Finished, FirstToken, FleetEvent, RoutingRequest
from router.types import AttemptFailed, CacheCleared, Reason, RequestId, WorkerId, WorkerLeft, Workers, WorkerView


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmdWeightedConfig:
    queue_weight: float = knob(2.0, "weight of the score of the waiting queue")
    kv_weight: float = knob(2.0, "weight of the score of free KV memory")
    prefix_weight: float = knob(3.0, "weight of the matched share of the prompt")
    max_match_tokens: int = knob(4096, "leading prompt tokens that are matched (256 blocks of 16); 0 for all")
    capacity_tokens: int = knob(500_000, "prompt tokens remembered per worker (31,250 blocks of 16)")

    def __post_init__(self) -> None:
        for weight in (self.queue_weight, self.kv_weight, self.prefix_weight):
            require(weight >= 0, "weights must not be negative")
        require(self.max_match_tokens >= 0, "max_match_tokens must not be negative")
        require(self.capacity_tokens >= 1, "capacity_tokens must be at least 1")


class LlmdWeighted:
    def __init__(self, config: LlmdWeightedConfig, rng: Random) -> None:
        self._config = config
        self._rng = rng
        self._index: dict[WorkerId, RecentBlocks] = {}
        self._queued: dict[WorkerId, set[RequestId]] = {}

    def select(self, request: RoutingRequest, workers: Workers) -> Decision:
        """Pick the highest score in O(workers x log blocks); ties are broken at random."""
        blocks = self._matched_part(request)
        depths = [self._index[one.id].match(blocks) if one.id in self._index else 0 for one in workers]
        queues = [len(self._queued.get(worker.id, ())) for worker in workers]
        shortest, longest = min(queues), max(queues)
        config = self._config
        costs = [
            -config.queue_weight * ((longest - queue) / (longest - shortest) if longest > shortest else 1.0)
            - config.kv_weight * (1.0 - _kv_usage(worker))
            - config.prefix_weight * (units_until(depth) / units_until(len(blocks)) if blocks else 0.0)
            for worker, queue, depth in zip(workers, queues, depths, strict=True)
        ]
        index = smallest(costs, self._rng)
        return Decision(
            worker=workers[index].id,
            reason=Reason.LOWEST_COST,
            match_blocks=depths[index],
            match_tokens=units_until(depths[index]) * request.key.unit_tokens,
        )

    def observe(self, event: FleetEvent) -> None:
        """Remember what was dispatched where, and who waits for a first token."""
        match event:
            case Dispatched():
                worker = event.decision.worker
                stored = self._index.setdefault(worker, RecentBlocks())
                stored.insert(self._matched_part(event.request), event.at_s)
                stored.trim_units(max(1, int(self._config.capacity_tokens / max(1.0, event.request.key.unit_tokens))))
                self._queued.setdefault(worker, set()).add(event.request.request_id)
            case FirstToken() | Finished() | AttemptFailed():
                self._queued.get(event.worker, set()).discard(event.request_id)
            case WorkerLeft():
                self._index.pop(event.worker, None)
                self._queued.pop(event.worker, None)
            case CacheCleared():
                self._index.pop(event.worker, None)

    def index_blocks(self) -> Mapping[WorkerId, int]:
        """Blocks remembered per worker."""
        return {worker: len(stored) for worker, stored in self._index.items()}

    def _matched_part(self, request: RoutingRequest) -> list[int]:
        limit = self._config.max_match_tokens
        if limit == 0:
            return list(request.key.blocks)
        return list(request.key.blocks[: max(1, depth_within(int(limit / max(1.0, request.key.unit_tokens))))])


def _kv_usage(worker: WorkerView) -> float:
    """Share of the KV cache in use, 0 where no report has come."""
    load = worker.load
    return 0.0 if load is None or load.capacity_tokens <= 0 else load.used_tokens / load.capacity_tokens
