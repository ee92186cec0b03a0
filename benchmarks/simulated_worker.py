"""How fast one simulated worker answers on one core: `python benchmarks/simulated_worker.py [--json]`.

The worker runs in a process of its own on one core, with a cost model of next to nothing so that the modelled GPU never
waits; this process drives it from the other cores over loopback. What counts is the work in a second of the worker's
CPU time, which is what a core gives when nothing else runs on it; the rates in wall time depend on who else does. Exit
status 1 where a target is missed. Not part of any package: it imports workers.simulated from the checkout.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import httptools
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console
from rich.table import Table

from workers.simulated.cost_model import CostModel
from workers.simulated.options import Options
from workers.simulated.server import running

NOTHING = CostModel(
    prefill_step_s=1e-6,
    prefill_token_s=0.0,
    prefill_attention_s=0.0,
    prefill_context_pair_s=0.0,
    prefill_context_s=0.0,
    decode_step_base_s=1e-6,
    decode_request_s=0.0,
    decode_context_s=0.0,
)
"""A GPU that is never waited for."""
TARGET_REQUESTS_PER_S = 500.0
TARGET_EVENTS_PER_S = 20_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`count` equal requests over `connections` connections."""

    name: str
    path: str
    prompt_bytes: int
    tokens: int
    stream: bool
    count: int
    connections: int = 64


CHAT = "/v1/chat/completions"
CASES = (
    Case(name="chat, 200 B prompt, 16 tokens", path=CHAT, prompt_bytes=200, tokens=16, stream=False, count=2000),
    Case(name="chat, 4 kB prompt, 16 tokens", path=CHAT, prompt_bytes=4000, tokens=16, stream=False, count=1500),
    Case(name="chat, 40 kB prompt, 16 tokens", path=CHAT, prompt_bytes=40_000, tokens=16, stream=False, count=800),
    Case(name="chat stream, 1 kB, 200 tokens", path=CHAT, prompt_bytes=1000, tokens=200, stream=True, count=300),
    Case(
        name="completion stream, 1 kB, 200 tokens",
        path="/v1/completions",
        prompt_bytes=1000,
        tokens=200,
        stream=True,
        count=300,
    ),
    Case(
        name="/generate stream, 1 kB, 200 tokens",
        path="/generate",
        prompt_bytes=1000,
        tokens=200,
        stream=True,
        count=200,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one case took: per second of the worker's CPU time, and per second of wall time."""

    name: str
    stream: bool
    requests_per_core_s: float
    events_per_core_s: float
    requests_per_s: float
    events_per_s: float
    cpu_share: float


def main() -> None:
    """Runs all cases and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[1:])
    results = [_measure(case, cores[0]) for case in CASES if arguments.only in case.name]
    missed = [result.name for result in results if not _met(result)]
    if arguments.json:
        targets = {"requests_per_s": TARGET_REQUESTS_PER_S, "events_per_s": TARGET_EVENTS_PER_S}
        document = {"targets": targets, "missed": missed, "cases": [asdict(result) for result in results]}
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
    else:
        Console(width=None if sys.stdout.isatty() else 120).print(_table(results))
    sys.exit(1 if missed else 0)


def _met(result: Result) -> bool:
    """Streams must reach the target for events, whole answers that for requests."""
    if result.stream:
        return result.events_per_core_s >= TARGET_EVENTS_PER_S
    return result.requests_per_core_s >= TARGET_REQUESTS_PER_S


def _table(results: Sequence[Result]) -> Table:
    table = Table(title="One simulated worker on one core", title_justify="left")
    table.add_column("case", no_wrap=True)
    headings = ("requests\nper core s", "events\nper core s", "CPU us\nper event", "wall\nevents/s", "core", "target")
    for heading in headings:
        table.add_column(heading, justify="right")
    for one in results:
        table.add_row(
            one.name,
            f"{one.requests_per_core_s:,.0f}",
            f"{one.events_per_core_s:,.0f}" if one.stream else "-",
            f"{1e6 / one.events_per_core_s:.1f}" if one.stream else "-",
            f"{one.events_per_s:,.0f}" if one.stream else "-",
            f"{one.cpu_share:.0%}",
            "met" if _met(one) else "MISSED",
        )
    return table


def _measure(case: Case, core: int) -> Result:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there, core))
    process.start()
    try:
        port = here.recv()
        uvloop.run(_drive(port, case, case.count // 10))  # warm
        here.send("start")
        here.recv()
        started_s = time.perf_counter()
        events = uvloop.run(_drive(port, case, case.count))
        wall_s = time.perf_counter() - started_s
        here.send("stop")
        cpu_s = here.recv()
    finally:
        process.join(10)
        if process.is_alive():
            process.terminate()
    return Result(
        name=case.name,
        stream=case.stream,
        requests_per_core_s=case.count / cpu_s,
        events_per_core_s=events / cpu_s,
        requests_per_s=case.count / wall_s,
        events_per_s=events / wall_s,
        cpu_share=cpu_s / wall_s,
    )


def _serve(pipe: Connection, core: int) -> None:
    """The worker's process: serves until told, and says what CPU time it took in between."""
    os.sched_setaffinity(0, {core})
    logging.disable(logging.WARNING)  # that it lags behind a GPU which takes no time

    async def until_told() -> None:
        loop = asyncio.get_running_loop()
        async with running(Options(port=0, cost_model=NOTHING)) as server:
            pipe.send(server.port)
            await loop.run_in_executor(None, pipe.recv)
            before = resource.getrusage(resource.RUSAGE_SELF)
            pipe.send("started")
            await loop.run_in_executor(None, pipe.recv)
            after = resource.getrusage(resource.RUSAGE_SELF)
            pipe.send(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    uvloop.run(until_told())


def _request(case: Case) -> bytes:
    text = ("the quick brown fox jumps over the lazy dog " * (case.prompt_bytes // 44 + 1))[: case.prompt_bytes]
    body: dict[str, object] = {"model": "m", "max_tokens": case.tokens, "stream": case.stream}
    if case.path == "/generate":
        sampling = {"max_new_tokens": case.tokens}
        body = {"text": text, "sampling_params": sampling, "stream": case.stream}
    elif case.path == "/v1/completions":
        body["prompt"] = text
    else:
        body["messages"] = [{"role": "user", "content": text}]
    data = json.dumps(body).encode()
    head = b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % (case.path.encode(), len(data)) + data


class _Client(asyncio.Protocol):
    """Sends the same request again and again on one connection and counts the events of the answers."""

    def __init__(self, request: bytes, remaining: list[int]) -> None:
        self._request = request
        self._remaining = remaining
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self.events = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._next()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.events += body.count(b"data: ")

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() != 200:
            self.done.set_exception(ConnectionError(f"the worker answered {self._parser.get_status_code()}"))
        else:
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the worker closed the connection"))

    def _next(self) -> None:
        if self._transport is None:
            return
        if self._remaining[0] <= 0:
            self.done.set_result(None)
            self._transport.close()
            return
        self._remaining[0] -= 1
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(self._request)


async def _drive(port: int, case: Case, count: int) -> int:
    remaining = [count]
    request = _request(case)
    loop = asyncio.get_running_loop()
    clients: list[_Client] = []
    for _ in range(case.connections):
        _, client = await loop.create_connection(lambda: _Client(request, remaining), "127.0.0.1", port)
        clients.append(client)
    await asyncio.gather(*(client.done for client in clients))
    return sum(client.events for client in clients)


if __name__ == "__main__":
    main()
