"""Ports for servers that tests start: free now, and below those that Linux hands to outgoing connections (32,768 on).

A port of those could be taken by any connection before the server binds it. Which ports is drawn, so that processes
that test at the same time do not meet.
"""

from __future__ import annotations

from workers.sglang.cpu import server


def free_ports(count: int) -> list[int]:
    """That many in a row."""
    first = server.free_ports(count)
    return list(range(first, first + count))


def free_port() -> int:
    return server.free_ports(1)
