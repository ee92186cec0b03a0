"""`python -m router.processes.child LINE LISTENING NUMBER`: one of several router processes. Only parent starts it.

The same app and server as of a single process, with a line to the others. Its configuration is the parent's, with its
part of what cannot be shared. Ends with the parent.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections import Counter
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import msgspec

from router.admission.door import Door
from router.app import create_app
from router.config import RouterConfig, load_config
from router.errors import RouterError
from router.inbound import limited_protocol
from router.processes.frame import HEAD
from router.processes.line import Line
from router.serving import run_server, server_of
from router.state.reload import ConfigSource
from router.telemetry.logs import setup_logging

log = logging.getLogger(__name__)


def part_of(config: RouterConfig, number: int) -> RouterConfig:
    """What one of several processes is given of what each keeps for itself; all else holds for all together."""
    count, seed = config.server.processes, config.seed
    return replace(
        config,
        seed=None if seed is None else seed + number,
        server=replace(config.server, max_connections=ceil(config.server.max_connections / count)),
        retry=replace(config.retry, budget_floor=ceil(config.retry.budget_floor / count)),
    )


def read_hello(line: socket.socket) -> dict[str, Any]:
    """The parent's first frame, and nothing after it."""
    length, *_ = HEAD.unpack(_exactly(line, HEAD.size))
    found: dict[str, Any] = msgspec.msgpack.decode(_exactly(line, length))
    return found


def _exactly(line: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = line.recv(count - len(data))
        if not piece:
            sys.exit(1)  # the parent has ended
        data += piece
    return data


def main() -> None:
    """Serve until told to stop."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the leader listens for it
    line_fd, listening_fd, number = (int(text) for text in sys.argv[1:])
    sock, listening = socket.socket(fileno=line_fd), socket.socket(fileno=listening_fd)
    hello = read_hello(sock)
    file = None if hello["config_file"] is None else Path(hello["config_file"])
    overrides = {tuple(path): value for path, value in hello["overrides"]}

    def read() -> RouterConfig:
        return part_of(load_config(file, overrides), number)

    door = Door()
    try:
        config = read()
        setup_logging(config.server.log_level, config.server.log_format, process=number)
        limits = config.server
        protocol = limited_protocol(limits.max_header_bytes, limits.max_connections_per_address)
        addresses: Counter[str] | None = protocol.addresses if limits.max_connections_per_address else None
        line = Line(number, sock, addresses)
        line.bus.lost = _orphaned
        app = create_app(config, door=door, source=ConfigSource(read=read, file=file), line=line)
        server = server_of(config, app, door, protocol)
    except RouterError as error:
        sys.stderr.write(f"Error: {error.message}\n")
        sys.exit(1)
    if not run_server(server, listening):
        sys.exit(3)


def _orphaned() -> None:
    """The parent is gone: nobody could stop this process any more."""
    log.error("the parent has ended, and so does this process")
    os._exit(1)


if __name__ == "__main__":
    main()
