"""Lets requests in, makes them wait their turn, or refuses them with a reason and a time to come back.

The thin asynchronous side of fair_queue and rate: one future per request that waits. Called by request.dispatch; what
it holds is shown by GET /queue and the metrics. Not here: who a client is (security.access).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from router.admission.fair_queue import FairQueue, Ticket
from router.admission.rate import Bucket
from router.clock import Clock
from router.compiled import interpreted
from router.errors import ConcurrencyLimited, QueueFull, QueueTimeout, RateLimited
from router.knob import knob, require
from router.security.client import ANONYMOUS, Client

STEP = 4.0
"""How many times the share one step of priority is worth."""
COST_TOKENS = 1000.0
"""A request counts one, and one more for each that many prompt tokens."""


@interpreted
@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionConfig:
    max_in_flight: int = knob(0, "requests served at once, all workers together; 0: per_worker times the workers")
    per_worker: int = knob(1024, "requests served at once for each worker, where max_in_flight is 0")
    max_waiting: int = knob(4096, "requests that may wait for room; more are refused with 503")
    max_wait_s: float = knob(60.0, "seconds that a request may wait for room; then it is refused with 503")

    def __post_init__(self) -> None:
        require(self.max_in_flight >= 0, "max_in_flight must not be negative")
        require(self.per_worker >= 1, "per_worker must be at least 1")
        require(self.max_waiting >= 0, "max_waiting must not be negative")
        require(self.max_wait_s > 0, "max_wait_s must be positive")


class Admission:
    """One per app. `refused` counts by error code, `waited_s` sums the time in the queue of those let in."""

    def __init__(self, config: AdmissionConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._queue = FairQueue(0, config.max_waiting)
        self._workers = 1
        self._set_room(config.max_in_flight or config.per_worker)
        self._buckets: dict[str, tuple[float, Bucket]] = {}
        self._turns: dict[Ticket, asyncio.Future[None]] = {}
        self.refused: dict[str, int] = {}
        self.waited = 0
        self.waited_s = 0.0

    @property
    def room(self) -> int:
        """Requests that may be in at once."""
        return self._queue.room

    @property
    def queue(self) -> FairQueue:
        """To be read only."""
        return self._queue

    def resize(self, workers: int) -> None:
        """There are so many workers now."""
        self._workers = max(workers, 1)
        self._set_room(self._config.max_in_flight or self._config.per_worker * self._workers)
        self._grant()

    def reconfigure(self, config: AdmissionConfig) -> None:
        """From now on these limits hold. Who waits goes on waiting."""
        self._config = config
        self._queue.max_waiting = config.max_waiting
        self.resize(self._workers)

    def arrive(self, client: Client, prompt_tokens: float, share: str) -> Ticket:
        """A request came; `share` names whose share it uses. If its ticket is not "running", `wait` for that.

        Raises RateLimited, ConcurrencyLimited or QueueFull.
        """
        now_s = self._clock()
        if client is not ANONYMOUS:
            self._check_limits(client, now_s)
        weight = STEP**client.priority if client.priority else 1.0
        ticket = Ticket(share, weight=weight, cost=1 + prompt_tokens / COST_TOKENS, since_s=now_s)
        pushed_out = self._queue.arrive(ticket)
        if pushed_out is not None:
            self._count(QueueFull.code)
            full = QueueFull(
                f"{self._queue.max_waiting} requests wait already (admission.max_waiting).",
                retry_after_s=self._queue.retry_after_s(),
            )
            if pushed_out is ticket:
                raise full
            turn = self._turns.pop(pushed_out, None)
            if turn is not None and not turn.done():
                turn.set_exception(full)
        return ticket

    def release(self, ticket: Ticket) -> None:
        """The request is over, however it ended."""
        if self._queue.waiting:
            self._queue.leave(ticket, self._clock())
            self._grant()
        else:
            self._queue.leave(ticket)

    async def wait(self, ticket: Ticket) -> None:
        """Returns when the request may run. Raises QueueTimeout, and QueueFull when others need its place."""
        loop = asyncio.get_running_loop()
        turn = self._turns[ticket] = loop.create_future()
        timer = loop.call_later(self._config.max_wait_s, self._too_long, ticket)
        try:
            await turn
        except BaseException:
            self._queue.leave(ticket)  # it may have been let in at the very moment its client left
            self._grant()
            raise
        finally:
            timer.cancel()
            self._turns.pop(ticket, None)
        self.waited += 1
        self.waited_s += self._clock() - ticket.since_s

    def _too_long(self, ticket: Ticket) -> None:
        turn = self._turns.get(ticket)
        if turn is not None and not turn.done():
            self._count(QueueTimeout.code)
            error = QueueTimeout(
                f"No room for {self._config.max_wait_s:g} s (admission.max_wait_s).",
                retry_after_s=self._queue.retry_after_s(),
            )
            turn.set_exception(error)

    def _grant(self) -> None:
        while (ticket := self._queue.next()) is not None:
            turn = self._turns.get(ticket)
            if turn is None or turn.done():
                self._queue.leave(ticket)
            else:
                turn.set_result(None)

    def _set_room(self, room: int) -> None:
        """So many requests may be served at once."""
        self._queue.room = room

    def _held(self, name: str) -> int:
        """Requests of this client, waiting and running."""
        return self._queue.held(name)

    def _check_limits(self, client: Client, now_s: float) -> None:
        if client.concurrency is not None and self._held(client.name) >= client.concurrency:
            self._count(ConcurrencyLimited.code)
            raise ConcurrencyLimited(
                f"{client.name} has {client.concurrency} requests running already, which is its limit.",
                retry_after_s=1,
            )
        if client.rate_per_s is None:
            return
        wait_s = self._bucket(client.name, client.rate_per_s, now_s).take(now_s)
        if wait_s > 0:
            self._count(RateLimited.code)
            raise RateLimited(
                f"{client.name} may start {client.rate_per_s:g} requests a second.", retry_after_s=math.ceil(wait_s)
            )

    def _bucket(self, name: str, rate_per_s: float, now_s: float) -> Bucket:
        rate, bucket = self._buckets.get(name, (0.0, None))
        if bucket is None or rate != rate_per_s:
            bucket = Bucket(rate_per_s, max(1.0, rate_per_s), now_s)
            self._buckets[name] = (rate_per_s, bucket)
        return bucket

    def _count(self, code: str) -> None:
        self.refused[code] = self.refused.get(code, 0) + 1

    def view(self) -> Mapping[str, Any]:
        """What GET /queue says. Names of clients are those of the keys file, or hashes."""
        now_s = self._clock()
        oldest: dict[str, float] = {}
        for ticket in self._turns:
            oldest[ticket.client] = max(oldest.get(ticket.client, 0.0), now_s - ticket.since_s)
        return {
            "in_flight": self._queue.running,
            "room": self._queue.room,
            "waiting": self._queue.waiting,
            "max_waiting": self._queue.max_waiting,
            "refused": dict(self.refused),
            "clients": [
                {
                    "client": name,
                    "in_flight": share.running,
                    "waiting": share.waiting,
                    "weight": share.weight,
                    "oldest_wait_s": round(oldest.get(name, 0.0), 3),
                }
                for name, share in self._queue.shares()
            ],
        }
