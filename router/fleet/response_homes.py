"""Which server made which stored response (`/v1/responses`): only that one can continue, show or cancel it.

Bounded; the oldest are forgotten first, and everything is with a restart of the router. Written by request.dispatch,
read by it and by fleet.native. No I/O.
"""

from __future__ import annotations

from collections import OrderedDict

CAPACITY = 100_000
"""About 20 MB; a conversation that continues an older response than that starts from a 404 of some server."""
MAX_ID_CHARS = 200


class ResponseHomes:
    """Response id to server name."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._homes: OrderedDict[str, str] = OrderedDict()

    def made(self, response_id: str, server: str) -> None:
        """The server answered with this response."""
        if len(response_id) > MAX_ID_CHARS:
            return
        self._homes[response_id] = server
        self._homes.move_to_end(response_id)
        if len(self._homes) > self._capacity:
            self._homes.popitem(last=False)

    def home(self, response_id: str) -> str | None:
        """The server that made it; None when that is not known."""
        return self._homes.get(response_id)
