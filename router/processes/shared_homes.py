"""Which server made which stored response, in all processes: what one learns it tells the others. No I/O of its own."""

from __future__ import annotations

from collections.abc import Callable

from router.fleet.response_homes import ResponseHomes


class SharedHomes(ResponseHomes):
    """`told` is called with what was learned here."""

    def __init__(self) -> None:
        super().__init__()
        self.told: Callable[[str, str], None] = lambda response_id, server: None

    def made(self, response_id: str, server: str) -> None:
        super().made(response_id, server)
        self.told(response_id, server)

    def heard(self, response_id: str, server: str) -> None:
        """Another process was answered with this response."""
        super().made(response_id, server)
