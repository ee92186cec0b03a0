"""Whether anybody listens at a URL: a TCP connection, opened and closed, nothing sent. Called by fleet.health."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit


async def accepts(base_url: str, timeout_s: float) -> None:
    """Returns when a connection was accepted. Raises TimeoutError, or OSError when it is refused or impossible."""
    parts = urlsplit(base_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    async with asyncio.timeout(timeout_s):
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, parts.hostname or "", port)
    transport.abort()
