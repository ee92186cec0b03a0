"""One request on one worker: counted there, and open to being called off until its first byte.

The only place where a worker's in-flight count changes. Success, failure and a client that hangs up leave by the same
door. One on trial has a shorter deadline until its first byte. Called by request.dispatch through the registry.
"""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Final

from router.errors import WorkerTimeout
from router.fleet.call_off import CallOff
from router.fleet.state import WorkerState
from router.fleet.worker import Worker

DRAINING: Final = WorkerState.DRAINING
log = logging.getLogger(__name__)


class Lease:
    """For the time of a `with` block. A wait that was called off ends with the error it was given."""

    __slots__ = ("_call_off", "_timer", "_trial_s", "worker")

    def __init__(self, worker: Worker, call_off: CallOff | None = None, trial_s: float | None = None) -> None:
        self.worker = worker
        self._call_off = call_off
        self._trial_s = trial_s
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Lease:
        worker, call_off = self.worker, self._call_off
        worker.in_flight += 1
        if call_off is not None:
            worker.unanswered[call_off] = None
            if self._trial_s is not None:
                late = WorkerTimeout(
                    f"Worker {worker.id}, on trial, sent nothing for {self._trial_s:g} s (breaker.trial_timeout_s)."
                )
                self._timer = asyncio.get_running_loop().call_later(self._trial_s, call_off, late)
        return self

    def answered(self) -> None:
        """The first byte is there."""
        if self._call_off is not None:
            unanswered = self.worker.unanswered
            if self._call_off in unanswered:
                del unanswered[self._call_off]
            if self._timer is not None:
                self._timer.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        worker, call_off = self.worker, self._call_off
        if call_off is not None and call_off in worker.unanswered:
            self.answered()
        worker.in_flight -= 1
        if worker.in_flight == 0 and worker.state is DRAINING:
            log.info("worker %s is drained", worker.id)
        if error is not None and call_off is not None and isinstance(error, asyncio.CancelledError):
            found = call_off.taken()
            if found is not None:
                raise found from None
