"""In-flight accounting: the only place where a worker's count changes. Called by request.dispatch.

Success, failure and a client that hangs up leave by the same door.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from router.fleet.worker import Worker


class Lease:
    """One request on one worker, for the time of a `with` block."""

    __slots__ = ("_ended", "worker")

    def __init__(self, worker: Worker, ended: Callable[[Worker], None]) -> None:
        self.worker = worker
        self._ended = ended

    def __enter__(self) -> Worker:
        self.worker.in_flight += 1
        return self.worker

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.worker.in_flight -= 1
        self._ended(self.worker)
