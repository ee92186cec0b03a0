"""Where a request waits at the router until a worker has room for it: the asynchronous side of held_queue.

Called by request.dispatch (`turn`), and as a listener by the fleet's registry: whatever may have freed a worker makes
those that would go there decide again, one after the other, each before the next is asked. Not here: the order
(admission.held_queue), when a wait is too long (the policy says so), room by count (admission.admission).
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from router.admission.held_queue import LOOK_S, Held, HeldQueue, HoldConfig
from router.clock import Clock
from router.records import Decision, Finished, FirstToken, FleetEvent
from router.request.strand import Gate
from router.types import AttemptFailed, LoadReported, WorkerId


class Hold:
    """One per app. `held` counts requests that were held and are no more, `held_s` sums their times."""

    HEARS: Final = (FirstToken, Finished, AttemptFailed, LoadReported)

    def __init__(self, config: HoldConfig, clock: Clock) -> None:
        self.queue = HeldQueue(config)
        self.held = 0
        self.held_s = 0.0
        self._clock = clock
        self._gates: dict[Held, Gate] = {}
        self._freed: dict[WorkerId, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def waits(self, decision: Decision, held: Held) -> bool:
        """Whether a request so decided is to wait for its `turn`."""
        return self.queue.waits(decision, held, self._clock())

    async def turn(self, held: Held, decision: Decision) -> None:
        """Returns when the request is to be decided again; then it comes back here, or it is over with `leave`."""
        self.queue.put(held, decision)
        gate = self._gates[held] = Gate()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)
        await gate

    def leave(self, held: Held, held_s: float) -> None:
        """It goes to a worker, or has ended otherwise, after so many seconds."""
        self.queue.take(held)
        self._gates.pop(held, None)
        self.held += 1
        self.held_s += held_s

    def observe(self, event: FleetEvent) -> None:
        """Listener: what may have freed a worker."""
        if self.queue.size and isinstance(event, self.HEARS):
            if not self._freed:
                asyncio.get_running_loop().call_soon(self._next_turns)
            self._freed[event.worker] = None

    def view(self) -> dict[str, Any]:
        """What GET /queue says of it."""
        now_s = self._clock()
        waits_s = [now_s - held.arrived_s for held in self._gates]
        return {
            "held": self.queue.size,
            "oldest_s": round(max(waits_s, default=0.0), 3),
            "would_go_to": self.queue.sizes(),
        }

    def _next_turns(self) -> None:
        while self._freed:
            worker = next(iter(self._freed))
            for held in self.queue.turns(worker):
                self._gates[held].open()
            del self._freed[worker]

    def _look(self) -> None:
        """Now and then while something is held: not all that frees a worker is told."""
        self._timer = None
        worker = self.queue.next_worker()
        if worker is not None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)
            self._freed[worker] = None
            self._next_turns()
