"""A client that opens many connections and sends a byte a second on each, for ever: `trickle.py PORT COUNT`.

Says `open` when all are, and at SIGTERM how many were closed on it, each of which it had opened again at once. A
program of its own, so that its work is not the measuring client's. Called by slow_clients.
"""

from __future__ import annotations

import contextlib
import json
import resource
import selectors
import signal
import socket
import sys
import time

STEPS = 100
"""Parts of a second: each has its share of the connections."""
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: router\r\nx-slow: "


def opened(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port))
    made.setblocking(False)
    made.send(HEAD)
    return made


def main() -> None:
    port, count = int(sys.argv[1]), int(sys.argv[2])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    selector, closed = selectors.DefaultSelector(), 0
    sockets = [opened(port) for _ in range(count)]
    for index, each in enumerate(sockets):
        selector.register(each, selectors.EVENT_READ, index)
    print("open", flush=True)
    step, next_s = 0, time.monotonic()
    while not stopped:
        for index in range(step, count, STEPS):
            with contextlib.suppress(OSError):  # closed on us: the selector says so too
                sockets[index].send(b"a")
        for key, _ in selector.select(0):
            selector.unregister(key.fileobj)
            sockets[key.data].close()
            sockets[key.data] = opened(port)
            selector.register(sockets[key.data], selectors.EVENT_READ, key.data)
            closed += 1
        step = (step + 1) % STEPS
        next_s += 1 / STEPS
        time.sleep(max(0.0, next_s - time.monotonic()))
    print(json.dumps({"closed_by_router": closed}), flush=True)


if __name__ == "__main__":
    main()
