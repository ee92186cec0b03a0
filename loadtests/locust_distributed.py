"""What our Locust master and its workers tell each other beyond Locust's own messages: shares of a schedule, and the
last reports of a test, so that none is lost.

Called by locust_run.py. Not here: what a report holds (locust_metrics.py).
"""

# mypy: allow-untyped-calls
# Locust annotates its functions only in part.

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import gevent  # type: ignore[import-untyped]  # has no stubs of its own
from locust.runners import MasterRunner, WorkerRunner

from loadtests.locust_schedule import Share

log = logging.getLogger(__name__)

_SHARE, _COLLECT, _COLLECTED = "trieway_share", "trieway_collect", "trieway_collected"
_WORKERS_COME_WITHIN_S = 45.0
"""A worker on a busy machine takes its time to start; who runs the test has been told of the mistake by then."""
_REPORTS_COME_WITHIN_S = 15.0
"""A worker that sends as much as it can is slow to hear; Locust itself waits half a second and then loses reports."""


class MasterLink:
    """The master's end."""

    def __init__(self, master: MasterRunner) -> None:
        self._master = master
        self._missing: set[str] = set()
        master.register_message(_COLLECTED, lambda environment, msg: self._missing.discard(msg.node_id))

    def share_out(self) -> None:
        """Tells each worker its share. Messages to one worker arrive in order, so it knows before its users start."""
        workers = [client.id for client in self._master.clients.ready]
        for index, worker in enumerate(workers):
            self._master.send_message(_SHARE, {"index": index, "of": len(workers)}, worker)

    def collect(self) -> None:
        """Waits for what the workers have not reported yet; logs how many did not answer."""
        clients = self._master.clients
        self._missing = {client.id for client in (*clients.ready, *clients.running, *clients.spawning)}
        for worker in self._missing.copy():
            self._master.send_message(_COLLECT, None, worker)
        _wait(lambda: not self._missing, _REPORTS_COME_WITHIN_S)
        if self._missing:
            log.warning("%d workers did not report their last results", len(self._missing))

    def send_home(self, expected: int) -> None:
        """Quits the workers of a test that cannot start. Those that have not come yet are waited for, or they would
        wait for a master that has gone.
        """
        _wait(lambda: len(self._master.clients.ready) >= expected, _WORKERS_COME_WITHIN_S)
        self._master.quit()


class WorkerLink:
    """A worker's end. `take_share` is told the share; `close` that what comes later does not count any more."""

    def __init__(self, worker: WorkerRunner, *, take_share: Callable[[Share], None], close: Callable[[], None]) -> None:
        self._worker = worker
        self._take_share = take_share
        self._close = close
        worker.register_message(_SHARE, lambda environment, msg: self._on_share(msg.data))
        worker.register_message(_COLLECT, lambda environment, msg: self._on_collect())

    def _on_share(self, data: dict[str, Any]) -> None:
        self._take_share(Share(index=data["index"], of=data["of"]))

    def _on_collect(self) -> None:
        self._worker._send_stats()  # noqa: SLF001  Locust has no other way to report now
        self._close()
        self._worker.send_message(_COLLECTED)


def _wait(done: Callable[[], bool], within_s: float) -> None:
    until_s = time.monotonic() + within_s
    while not done() and time.monotonic() < until_s:
        gevent.sleep(0.02)
