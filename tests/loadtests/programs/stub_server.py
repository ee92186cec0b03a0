"""A program that stands in for `python -m workers simulate` and `python -m router serve` in tests of fleets.

Standard library only, so that it starts quickly. What it does beyond answering is its mode; every start, flush and
call is a line in the file that STUB_JOURNAL names.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def journal(line: str) -> None:
    with Path(os.environ["STUB_JOURNAL"]).open("a") as file:
        file.write(line + "\n")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    options: argparse.Namespace
    turn = itertools.count()

    def do_GET(self) -> None:
        if self.path == "/flush_cache":
            journal(f"flush {self.options.port}")
            self.answer(200, {})
        elif self.path == "/v1/models":
            self.answer(200, {"data": [{"id": "stub-model"}]})
        elif self.path == "/workers" and self.options.role == "router":
            names = [f"w{index}" for index in range(len(self.options.worker))]
            self.answer(200, {"workers": [{"id": name, "state": "ready"} for name in names]})
        elif self.options.mode == "never-ready":
            self.answer(503, {"error": "still starting"})
        else:
            self.answer(200, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        turn = next(self.turn)
        journal(f"call {self.options.policy} {body['model']} {turn}")
        if self.options.mode == "dies" and turn == 2:
            print("the stub met its end", flush=True)
            os._exit(3)
        if self.options.mode == "hangs" and turn == 2:
            signal.pause() if sys.platform == "win32" else signal.sigwait({signal.SIGUSR1})
        cached = 8 if self.options.policy == "prefix_match" else None
        details = None if cached is None else {"cached_tokens": cached}
        usage = {"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": details}
        events = [{"choices": [{"delta": {"content": "a"}}]}, {"choices": [], "usage": usage}]
        data = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(data)))
        if self.options.role == "router":
            self.send_header("x-trieway-worker", f"w{turn % len(self.options.worker)}")
        self.end_headers()
        self.wfile.write(data.encode())

    def answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role")
    parser.add_argument("--mode", default="")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--policy", default="")
    parser.add_argument("--worker", action="append", default=[])
    options, _ = parser.parse_known_args()
    journal(f"start {options.role} {os.getpid()} {options.port} {options.policy}")
    if options.mode == "exits":
        print("first line\nno GPU here", flush=True)
        sys.exit(7)
    if options.mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Handler.options = options
    ThreadingHTTPServer((options.host, options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
