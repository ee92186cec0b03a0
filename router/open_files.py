"""How many files and connections this process may have open: raised to what the system allows, or said to be too few.

A shell's usual limit is 1,024, and each request in flight needs two. Called by config_commands.
"""

from __future__ import annotations

import contextlib
import logging
import sys

log = logging.getLogger(__name__)

BESIDES = 256
"""Descriptors for what is neither a client's connection nor a worker's: files, probes, the log."""


def allow(connections: int) -> int:
    """Let the process hold that many connections of clients, and one to a worker for each; the limit that now holds.

    Logs how many it can hold when the system allows fewer, as a warning below a quarter. Does nothing on Windows.
    """
    wanted = 2 * connections + BESIDES
    if sys.platform == "win32":
        return wanted
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted and soft != resource.RLIM_INFINITY:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):  # macOS names no hard limit and has one
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    if soft < wanted and soft != resource.RLIM_INFINITY:
        level = logging.WARNING if soft < wanted / 4 else logging.INFO
        log.log(
            level,
            "%d open files are allowed (ulimit -Hn): enough for %d requests at once, not for server.max_connections %d",
            soft, (soft - BESIDES) // 2, connections,
        )  # fmt: skip
    return int(soft)
