"""Whether the router takes new work. Closed once, when it is told to stop; what runs then finishes. No I/O.

Read by request.dispatch and /ready, closed by admission.draining_server.
"""

from __future__ import annotations

from collections.abc import Callable

from router.errors import RouterStopping


class Door:
    """`busy` says how many requests are inside; the app sets it."""

    def __init__(self) -> None:
        self.closed = False
        self.busy: Callable[[], int] = lambda: 0

    def close(self) -> None:
        self.closed = True

    def check(self) -> None:
        """Raises RouterStopping, which closes the connection, so that the client connects elsewhere."""
        if self.closed:
            raise RouterStopping("The router is stopping and takes no new requests.", retry_after_s=1)
