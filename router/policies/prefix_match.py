"""Prefix-match policy: the worker that has seen the longest prefix of this prompt, unless it is much busier.

Learns what it dispatched (an approximate trie per worker). Its load guard counts requests, not their work: for that,
see expected_ttft. Not here: eligibility (fleet), the trie itself (prefix.trie).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from router.knob import knob, require
from router.policies.known_match import match_tokens
from router.policies.ties import smallest
from router.prefix.index import PrefixIndex
from router.records import Decision, Dispatched, FleetEvent, RoutingRequest
from router.types import CacheCleared, Candidate, Reason, WorkerId, WorkerLeft, Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixMatchConfig:
    capacity_blocks: int = knob(65_536, "prompt blocks remembered per worker; about 150 bytes each")
    load_factor: float = knob(1.5, "a match is not followed past this many times the mean requests in flight ...")
    load_slack: int = knob(4, "... plus this many requests")

    def __post_init__(self) -> None:
        require(self.capacity_blocks >= 1, "must be at least 1")
        require(self.load_factor >= 1.0, "must be at least 1.0: below the mean, no match could ever be followed")
        require(self.load_slack >= 0, "must not be negative")


class PrefixMatch:
    def __init__(self, config: PrefixMatchConfig, rng: Random) -> None:
        self._config = config
        self._rng = rng
        self.index = PrefixIndex(config.capacity_blocks)

    def select(self, request: RoutingRequest, workers: Workers) -> Decision:
        """Pick the deepest match among workers under the load guard; without any match, the least in flight.

        Equal matches go to the one with fewer requests in flight, then at random. O(workers x match).
        """
        blocks = self.index.match(request.key.blocks, workers)
        matches = match_tokens(request, workers, blocks)
        mean = sum(worker.in_flight for worker in workers) / len(workers)
        bound = mean * self._config.load_factor + self._config.load_slack
        free = [m if worker.in_flight <= bound else 0.0 for m, worker in zip(matches, workers, strict=True)]
        deepest = max(free)
        if deepest == 0:
            index = smallest([worker.in_flight for worker in workers], self._rng)
            reason = Reason.PREFIX_BUSY if any(matches) else Reason.NO_PREFIX
        else:
            holders = [i for i, match in enumerate(free) if match == deepest]
            index = holders[smallest([workers[i].in_flight for i in holders], self._rng)]
            reason = Reason.PREFIX
        return Decision(
            worker=workers[index].id,
            reason=reason,
            match_blocks=blocks[index],
            match_tokens=matches[index],
        )

    def candidates(self, request: RoutingRequest, workers: Workers) -> tuple[Candidate, ...]:
        """The match that `select` sees on every worker; it prices nothing in seconds."""
        matches = match_tokens(request, workers, self.index.match(request.key.blocks, workers))
        return tuple(Candidate(worker=worker.id, match_tokens=m) for worker, m in zip(workers, matches, strict=True))

    def index_blocks(self) -> Mapping[WorkerId, int]:
        """Blocks remembered per worker."""
        return {worker: self.index.size_blocks(worker) for worker in self.index.workers()}

    def dump(self, now_s: float) -> dict[str, Any]:
        """Every worker's prompts, least recently used first."""
        return {"prompts": {worker: self.index.prompts(worker) for worker in self.index.workers()}}

    def load(self, state: dict[str, Any], now_s: float, workers: Collection[WorkerId]) -> None:
        """Take up `dump`'s for these workers. Raises ValueError for anything else, and is then empty."""
        index = PrefixIndex(self._config.capacity_blocks)
        saved = state.get("prompts")
        if not isinstance(saved, dict):
            raise ValueError("no prompts")
        for worker in workers:
            for prompt in saved.get(worker, ()):
                if not all(type(block) is int for block in prompt):
                    raise ValueError("a block is not a number")
                index.insert(worker, prompt)
        self.index = index

    def observe(self, event: FleetEvent) -> None:
        """Remember what was dispatched where; forget workers that left or lost their cache."""
        match event:
            case Dispatched():
                self.index.insert(event.decision.worker, event.request.key.blocks)
            case WorkerLeft() | CacheCleared():
                self.index.forget(event.worker)
            case _:
                pass
