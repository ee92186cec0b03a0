"""Session-hash policy: rendezvous hashing of the session, with bounded load.

A session keeps its worker while that worker is not overloaded, and only the sessions of a worker that leaves move.
Not here: how a session is recognised (request.parse), eligibility (fleet).
Sources: Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998); Mirrokni et al.,
"Consistent hashing with bounded loads" (2018), whose bound of (1 + 1/4) times the mean is the default.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from random import Random

from xxhash import xxh3_64_intdigest

from router.knob import knob, require
from router.policies.ties import smallest
from router.records import Decision, FleetEvent, RoutingRequest
from router.types import Reason, Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionHashConfig:
    load_factor: float = knob(1.25, "a worker takes at most this many times the mean number of requests in flight")
    min_in_flight: int = knob(4, "a worker with fewer requests in flight than this is never called overloaded")

    def __post_init__(self) -> None:
        require(self.load_factor >= 1.0, "must be at least 1.0: below the mean, no worker could take a request")
        require(self.min_in_flight >= 0, "must not be negative")


class SessionHash:
    def __init__(self, config: SessionHashConfig, rng: Random) -> None:
        self._config = config
        self._rng = rng

    def select(self, request: RoutingRequest, workers: Workers) -> Decision:
        """Pick the session's worker, or the next in its order that is not overloaded, in O(workers log workers).

        A request without a session counts its first prompt block as one; without that too, it goes to the worker
        with the fewest requests in flight.
        """
        name = self._name(request)
        if name is None:
            index = smallest([worker.in_flight for worker in workers], self._rng)
            return Decision(worker=workers[index].id, reason=Reason.LEAST_LOADED)
        ranked = sorted(workers, key=lambda worker: xxh3_64_intdigest(f"{worker.id}\0{name}"), reverse=True)
        mean = (sum(worker.in_flight for worker in workers) + 1) / len(workers)
        bound = max(ceil(mean * self._config.load_factor), self._config.min_in_flight)
        worker = next(worker for worker in ranked if worker.in_flight < bound)  # not all are above their mean
        return Decision(
            worker=worker.id, reason=Reason.SESSION if worker is ranked[0] else Reason.SESSION_OVERFLOW
        )

    def observe(self, event: FleetEvent) -> None:
        """Nothing to learn: the hash remembers."""

    @staticmethod
    def _name(request: RoutingRequest) -> str | None:
        if request.session is not None:
            return request.session
        return f"{request.key.blocks[0]:x}" if request.key.blocks else None
