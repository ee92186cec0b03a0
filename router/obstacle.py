"""Whether an address can be listened on, asked before anything is started there, and of what family it is. Called by
up, config_commands and processes.parent.
"""

from __future__ import annotations

import socket


def family_of(host: str) -> socket.AddressFamily:
    """Of an address as text."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def obstacle(host: str, port: int) -> OSError | None:
    """Why nobody can listen there now; None if one can. Listens for a moment."""
    try:
        socket.create_server((host, port), family=family_of(host)).close()
    except OSError as error:
        return error
    return None
