"""A request's wait for a worker's first byte: it can be called off, and one on trial has a shorter deadline.

For the time of a `with` block around an attempt. Called by request.dispatch through the registry.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from router.errors import WorkerTimeout
from router.fleet.call_off import CallOff
from router.fleet.worker import Worker


class Unanswered:
    """Yields what is to be called at the first byte. A wait that was called off ends with the error it was given."""

    __slots__ = ("_call_off", "_timer", "_trial_s", "_worker")

    def __init__(self, worker: Worker, call_off: CallOff, trial_s: float | None) -> None:
        self._worker = worker
        self._call_off = call_off
        self._trial_s = trial_s
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Unanswered:
        self._worker.unanswered[self._call_off] = None
        if self._trial_s is not None:
            late = WorkerTimeout(
                f"Worker {self._worker.id}, on trial, sent nothing for {self._trial_s:g} s (breaker.trial_timeout_s)."
            )
            self._timer = asyncio.get_running_loop().call_later(self._trial_s, self._call_off, late)
        return self

    def __call__(self) -> None:
        """The first byte is there."""
        self._worker.unanswered.pop(self._call_off, None)
        if self._timer is not None:
            self._timer.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self()
        if isinstance(error, asyncio.CancelledError):
            found = self._call_off.taken()
            if found is not None:
                raise found from None
