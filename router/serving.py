"""The server around an app: uvicorn with our protocol, limits and way of stopping. Called by config_commands and by
processes.child, which have read the configuration. Not here: the app, which socket it listens on.
"""

from __future__ import annotations

import socket

import uvicorn

from router.admission.door import Door
from router.admission.draining_server import DrainingServer
from router.allocator import keep_memory
from router.asgi import ASGIApp
from router.config import RouterConfig
from router.garbage import calm
from router.inbound import RouterProtocol, limited_protocol
from router.open_files import allow
from router.security.tls import server_options

LISTENERS = 16
"""Duplicates of the listening socket. libuv accepts one connection from each in a turn of the loop: with a single one,
256 clients that came at once waited up to 9 s to be let in, while those who were in kept the loop busy."""


def server_of(
    config: RouterConfig, app: ASGIApp, door: Door, protocol: type[RouterProtocol] | None = None
) -> DrainingServer:
    """The server of this app, not yet listening. Raises ConfigError."""
    limits = config.server
    tls = server_options(config.security)
    settings = uvicorn.Config(
        app,
        host=limits.host,
        port=limits.port,
        http=protocol or limited_protocol(limits.max_header_bytes, limits.max_connections_per_address),
        log_config=None,
        log_level=limits.log_level,
        access_log=False,
        server_header=False,
        date_header=False,
        limit_concurrency=limits.max_connections,
        timeout_graceful_shutdown=int(limits.shutdown_grace_s),
        **tls,
    )
    return DrainingServer(settings, door, grace_s=limits.shutdown_grace_s, delay_s=limits.shutdown_delay_s)


def run_server(server: DrainingServer, listening: socket.socket) -> bool:
    """Serve until told to stop; whether it could be started."""
    allow(server.config.limit_concurrency or 0)
    calm()
    keep_memory()
    server.run(sockets=[listening, *(listening.dup() for _ in range(LISTENERS - 1))])
    return server.started
