"""uvicorn's server with a way to stop that a load balancer can follow: refuse new work first, then stop listening.

At the first signal the door closes: /ready and new requests are answered 503 with Connection: close, what runs goes
on. When nothing runs any more, or after the grace period, uvicorn's own shutdown follows. A second signal hurries it.
Called by cli.
"""

from __future__ import annotations

import logging
import time
from types import FrameType

import uvicorn

from router.admission.door import Door

log = logging.getLogger(__name__)


class DrainingServer(uvicorn.Server):
    """`grace_s` is how long requests may go on, `delay_s` how long the door stays visibly shut at least."""

    def __init__(self, config: uvicorn.Config, door: Door, *, grace_s: float, delay_s: float) -> None:
        super().__init__(config)
        self._door = door
        self._grace_s = grace_s
        self._delay_s = delay_s
        self._closed_s: float | None = None
        self._signal = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came. Runs between two instructions of the event loop's thread, so it only takes notes."""
        if self._closed_s is not None:
            super().handle_exit(sig, frame)
            return
        self._signal, self._closed_s = sig, time.monotonic()
        self._door.close()

    async def on_tick(self, counter: int) -> bool:
        """uvicorn asks ten times a second whether to stop."""
        stop = await super().on_tick(counter)
        if self._closed_s is None or self.should_exit:
            return stop
        waited_s = time.monotonic() - self._closed_s
        busy = self._door.busy()
        if waited_s >= self._delay_s and (busy == 0 or waited_s >= self._grace_s):
            if busy:
                log.warning("%d requests were not done %g s after the signal to stop", busy, waited_s)
                self.config.timeout_graceful_shutdown = 1
            super().handle_exit(self._signal, None)
            return True
        return stop
