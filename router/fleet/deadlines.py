"""One timer for the total deadlines of all requests, which rarely pass.

A timer per request would cost each as much as choosing its worker. Called by request.dispatch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from router.fleet.call_off import CallOff


class Deadlines:
    """`late` is called with what is to be called off."""

    def __init__(self, late: Callable[[CallOff], None]) -> None:
        self._late = late
        self._due_s: dict[CallOff, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0  # when it is up

    def begin(self, call_off: CallOff, limit_s: float, loop: asyncio.AbstractEventLoop) -> None:
        """The request, which `loop` runs, must be over in that time."""
        due_s = self._due_s[call_off] = loop.time() + limit_s
        if self._timer is None or self._timer_s > due_s:
            if self._timer is not None:
                self._timer.cancel()
            self._set(due_s, loop)

    def end(self, call_off: CallOff) -> None:
        """The request is over."""
        if call_off in self._due_s:
            del self._due_s[call_off]

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now_s = loop.time()
        late = [call_off for call_off, due_s in self._due_s.items() if due_s <= now_s]
        for call_off in late:
            del self._due_s[call_off]
        if self._due_s:  # a reload may have shortened the limit: the oldest need not be the next
            self._set(min(self._due_s.values()), loop)
        for call_off in late:
            self._late(call_off)

    def _set(self, due_s: float, loop: asyncio.AbstractEventLoop) -> None:
        self._timer_s = due_s
        self._timer = loop.call_at(due_s, self._look, loop)
