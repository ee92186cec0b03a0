"""Ends a request's current wait from outside, with an error of ours: its deadline passed, or its worker hangs.

Costs a request nothing until it is used: the wait is ended by cancelling the task that serves the request. Made by
request.dispatch, used by it and by fleet.registry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from router.errors import RouterError

Waiting = Callable[[RouterError], None]
"""A request that waits, as those see it who may end its wait: called with the error that it shall end with."""


class Cancellable(Protocol):
    """What serves a request: a Strand, or a Task of asyncio."""

    def cancel(self) -> bool: ...
    def uncancel(self) -> int: ...


class CallOff:
    """One request's. Call it to end what the request waits for; dispatch then finds the error with `taken`."""

    __slots__ = ("_error", "_task")

    def __init__(self, task: Cancellable) -> None:
        self._task = task
        self._error: RouterError | None = None

    def __call__(self, error: RouterError) -> None:
        """Only the first error counts until it was taken."""
        if self._error is None:
            self._error = error
            self._task.cancel()

    def taken(self) -> RouterError | None:
        """The error, once, when the cancellation at hand is ours and no other came with it; else None."""
        error, self._error = self._error, None
        if error is None or self._task.uncancel() > 0:
            return None
        return error
