"""Whether an address can be listened on, asked before anything is started there. Called by up and config_commands."""

from __future__ import annotations

import socket


def obstacle(host: str, port: int) -> OSError | None:
    """Why nobody can listen there now; None if one can. Listens for a moment."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        return error
    return None
