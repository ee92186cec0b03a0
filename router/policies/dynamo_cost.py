"""Dynamo's KV router as a policy: the prefill work that a worker would then hold, plus the blocks in use there.

Source: ai-dynamo/dynamo, docs/components/router (v1.6). Without KV events the router's own decisions are its index and
live 120 s; with them, what workers hold counts. Written from the published cost:

    cost = prefill_load_scale * max(active prefill + prompt - overlap_credit * overlap, 0) + active blocks with this one

Tokens stand for blocks: every term is linear in them. A request's uncached tokens are active prefill until its first
token, its blocks are active until it ends; blocks that active requests share count once. Generated tokens do not count
(there: off by default). Host and disk tiers, queueing and busy thresholds are off there by default, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp
from random import Random

from router.knob import knob, require
from router.policies.known_match import match_tokens
from router.policies.ties import smallest
from router.prefix.block_sizes import units_until
from router.prefix.recent_blocks import RecentBlocks
from router.records import Decision, Dispatched, Finished, FirstToken, FleetEvent, RoutingRequest
from router.types import AttemptFailed, CacheCleared, PromptKey, Reason, RequestId, WorkerId, WorkerLeft, Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamoCostConfig:
    prefill_load_scale: float = knob(1.0, "weight of prefill work against blocks in use")
    overlap_credit: float = knob(1.0, "share of a match that is taken off the prefill work")
    temperature: float = knob(0.0, "above 0, draw from a softmax over costs scaled to [0, 1]")
    share_active_blocks: bool = knob(True, "blocks that active requests share count once")
    ttl_s: float = knob(120.0, "seconds for which a dispatched prompt is believed to be cached")
    max_blocks: int = knob(1_048_576, "prompt blocks remembered per worker; beyond it, cut to 80 %")

    def __post_init__(self) -> None:
        require(self.prefill_load_scale >= 0, "prefill_load_scale must not be negative")
        require(self.overlap_credit >= 0, "overlap_credit must not be negative")
        require(self.temperature >= 0, "temperature must not be negative")
        require(self.ttl_s > 0, "ttl_s must be above 0")
        require(self.max_blocks >= 1, "max_blocks must be at least 1")


@dataclass(slots=True)
class _Worker:
    """What is booked on one worker. `active` counts, for each block, the active requests that hold it."""

    index: RecentBlocks = field(default_factory=RecentBlocks)
    requests: int = 0
    prefill_tokens: float = 0.0
    active: Counter[int] = field(default_factory=Counter)
    active_tokens: float = 0.0


@dataclass(slots=True)
class _Booking:
    worker: _Worker
    key: PromptKey
    prefill_tokens: float


class DynamoCost:
    """Books at the decision; frees prefill at the first token and blocks at the end."""

    def __init__(self, config: DynamoCostConfig, rng: Random) -> None:
        self._config = config
        self._rng = rng
        self._workers: dict[WorkerId, _Worker] = {}
        self._bookings: dict[RequestId, _Booking] = {}
        self._now_s = 0.0

    def select(self, request: RoutingRequest, workers: Workers) -> Decision:
        """Pick the lowest cost in O(workers x log blocks); ties are broken at random."""
        depths = [self._overlap(worker.id, request.key) for worker in workers]
        matched = match_tokens(request, workers, depths)
        costs = [self._cost(worker.id, request.key, tokens) for worker, tokens in zip(workers, matched, strict=True)]
        index = smallest(costs, self._rng) if self._config.temperature == 0 else self._draw(costs)
        return Decision(
            worker=workers[index].id,
            reason=Reason.LOWEST_COST,
            match_blocks=depths[index],
            match_tokens=matched[index],
        )

    def observe(self, event: FleetEvent) -> None:
        self._now_s = max(self._now_s, event.at_s)
        match event:
            case Dispatched():
                self._book(event.request, event.decision.worker)
            case FirstToken():
                self._prefilled(event.request_id)
            case Finished() | AttemptFailed():
                self._end(event.request_id)
            case CacheCleared():
                if event.worker in self._workers:
                    self._workers[event.worker].index = RecentBlocks()
            case WorkerLeft():
                self._workers.pop(event.worker, None)

    def index_blocks(self) -> Mapping[WorkerId, int]:
        """Blocks remembered per worker."""
        return {worker: len(known.index) for worker, known in self._workers.items()}

    def _overlap(self, worker: WorkerId, key: PromptKey) -> int:
        known = self._workers.get(worker)
        return 0 if known is None else known.index.match(key.blocks, self._now_s - self._config.ttl_s)

    def _cost(self, worker: WorkerId, key: PromptKey, matched_tokens: float) -> float:
        known = self._workers.get(worker)
        credit = self._config.overlap_credit * matched_tokens
        if known is None:
            return self._config.prefill_load_scale * max(key.prompt_tokens - credit, 0.0) + key.prompt_tokens
        prefill = max(known.prefill_tokens + key.prompt_tokens - credit, 0.0)
        incoming = self._added_tokens(known, key)
        return self._config.prefill_load_scale * prefill + known.active_tokens + incoming

    def _added_tokens(self, worker: _Worker, key: PromptKey) -> float:
        """Active tokens that a request adds to those of the other active ones."""
        if not self._config.share_active_blocks:
            return key.prompt_tokens
        return key.prompt_tokens - units_until(_leading(key.blocks, worker.active)) * key.unit_tokens

    def _draw(self, costs: Sequence[float]) -> int:
        low, span = min(costs), max(costs) - min(costs)
        scaled = [(cost - low) / span if span else 0.0 for cost in costs]
        weights = [exp(-one / self._config.temperature) for one in scaled]
        return self._rng.choices(range(len(costs)), weights)[0]

    def _book(self, request: RoutingRequest, worker: WorkerId) -> None:
        key = request.key
        self._end(request.request_id)
        exact = request.known_match_tokens or {}
        cached = exact.get(worker, units_until(self._overlap(worker, key)) * key.unit_tokens)
        known = self._workers.setdefault(worker, _Worker())
        booking = _Booking(known, key, max(key.prompt_tokens - cached, 0.0))
        self._bookings[request.request_id] = booking
        known.requests += 1
        known.prefill_tokens += booking.prefill_tokens
        known.active_tokens += self._added_tokens(known, key)
        known.active.update(key.blocks)
        known.index.insert(key.blocks, self._now_s)
        known.index.expire(self._now_s - self._config.ttl_s)
        if len(known.index) > self._config.max_blocks:
            known.index.trim(max(1, self._config.max_blocks * 4 // 5))

    def _prefilled(self, request_id: RequestId) -> None:
        booking = self._bookings.get(request_id)
        if booking is not None:
            booking.worker.prefill_tokens -= booking.prefill_tokens
            booking.prefill_tokens = 0.0

    def _end(self, request_id: RequestId) -> None:
        self._prefilled(request_id)
        booking = self._bookings.pop(request_id, None)
        if booking is None:
            return
        key, known = booking.key, booking.worker
        known.requests -= 1
        for block in key.blocks:
            known.active[block] -= 1
            if known.active[block] <= 0:
                del known.active[block]
        known.active_tokens -= self._added_tokens(known, key)
        if known.requests == 0:
            known.prefill_tokens = known.active_tokens = 0.0  # what rounding has left


def _leading(blocks: Sequence[int], held: Counter[int]) -> int:
    """How many leading blocks are held. Whoever holds a block holds those before it, so a binary search finds it."""
    low, high = 0, len(blocks)
    while low < high:
        middle = (low + high + 1) // 2
        if blocks[middle - 1] in held:
            low = middle
        else:
            high = middle - 1
    return low
