"""What the router itself costs per request and per streamed event, without sockets: exact enough for one line of code.

    python -m benchmarks.data_path.in_process [--size 200B] [--policy round_robin] [--in-flight 16] [--streams]

A client's and a worker's connection are fed bytes by hand, in one process and without the event loop, so what is left
is this program's own work. Prints bytecodes per request, which are the same in every run, by file or function, and the
microseconds of the fastest of many rounds. With `--loop N` it only serves N requests, for perf or callgrind. Not here:
system calls and the kernel (`make bench`).
"""

from __future__ import annotations

import argparse
import asyncio
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import process_time_ns
from typing import Any

import uvicorn
import uvloop
from uvicorn.server import ServerState

sys.path.insert(0, str(Path(__file__).parent))

from prepared import SIZES, write_requests

import router
from router.app import create_app
from router.config import RouterConfig, ServerConfig
from router.garbage import calm
from router.inbound import limited_protocol
from router.request.over_asgi import Split
from router.request.worker_connection import WorkerConnection

WORKERS = 4
ROUNDS, PER_ROUND = 40, 250
WARM = 1500
EVENTS = 64
ROOT = Path(router.__file__).parent
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
BODY = (
    b'{"id":"chatcmpl-mock","object":"chat.completion","created":1700000000,"model":"mock","choices":'
    b'[{"index":0,"message":{"role":"assistant","content":"A short fixed answer for benchmarks of routers.",'
    b'"tool_calls":null},"logprobs":null,"finish_reason":"stop","matched_stop":2}],"usage":{"prompt_tokens":'
    b'%d,"total_tokens":%d,"completion_tokens":20,"prompt_tokens_details":{"cached_tokens":%d}}}'
)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def answer_to(request: bytes) -> bytes:
    """What backend.c would say: a token for every 4 bytes, half of them cached."""
    prompt_tokens = len(request.partition(b"\r\n\r\n")[2]) // 4 + 1
    body = BODY % (prompt_tokens, prompt_tokens + 20, prompt_tokens // 2)
    return HEAD % len(body) + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


EVENT = chunk(
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"mock","choices":[{"index":0,'
    b'"delta":{"content":" token"},"finish_reason":null}]}\n\n'
)
STREAM_END = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Wire(asyncio.Transport):
    """A connection to nowhere: what is written is kept until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[Any] = []
        self.protocol: Any = None
        self.closed = False

    def write(self, data: Any) -> None:
        self.written.append(data)

    def writelines(self, pieces: Any) -> None:
        self.written.append(b"".join(pieces))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 40_000) if name in ("peername", "sockname") else default

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def get_write_buffer_size(self) -> int:
        return 0


class Loop(uvloop.Loop):  # type: ignore[misc]
    """Connects workers to wires; everybody else is refused."""

    wires: list[Wire]

    async def create_connection(self, factory: Callable[[], Any], *_: Any, **__: Any) -> Any:
        protocol = factory()
        if not isinstance(protocol, WorkerConnection):
            raise ConnectionRefusedError
        wire = Wire()
        wire.protocol = protocol
        protocol.connection_made(wire)
        self.wires.append(wire)
        return wire, protocol


class Client:
    """One client's connection, and the worker's that serves it now."""

    def __init__(self, loop: Loop, settings: uvicorn.Config) -> None:
        self.wire = Wire()
        self.protocol = limited_protocol(64 * 2**10)(settings, ServerState(), {}, loop)
        self.protocol.connection_made(self.wire)
        self.served_by: Wire | None = None


class Bench:
    """One router, as many clients as requests are to be in flight, as many workers' connections as it opens."""

    def __init__(self, loop: Loop, app: Split, requests: list[bytes], in_flight: int) -> None:
        settings = uvicorn.Config(app, http=limited_protocol(64 * 2**10), log_config=None, access_log=False)
        settings.load()
        self._loop = loop
        self._requests = requests
        self._answer = answer_to(requests[0])
        self._number = 0
        self._clients = [Client(loop, settings) for _ in range(in_flight)]

    def ask(self, client: Client) -> Wire:
        """Send one request; the worker's connection that got it."""
        self._number += 1
        request = self._requests[self._number % len(self._requests)].replace(b"@@@@@@@@", b"%08d" % self._number)
        for start in range(0, len(request), 2**18):  # as the loop reads it
            client.protocol.data_received(request[start : start + 2**18])
        for wire in self._loop.wires:
            if wire.written and wire.written[0].startswith(b"POST "):  # no probe, which waits for ever
                wire.written.clear()
                return wire
        raise SystemExit(f"no worker was asked: {client.wire.written!r}")

    def one(self) -> None:
        """The client that has waited longest gets its answer and asks again."""
        client = self._clients[self._number % len(self._clients)]
        if client.served_by is not None:
            client.served_by.protocol.data_received(self._answer)
            if not client.wire.written[0].startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"it failed: {client.wire.written[0]!r}")
            client.wire.written.clear()
        client.served_by = self.ask(client)

    def begin_stream(self) -> Wire:
        wire = self.ask(self._clients[0])
        wire.protocol.data_received(STREAM_HEAD + EVENT)
        return wire

    def end_stream(self, wire: Wire) -> None:
        wire.protocol.data_received(STREAM_END)
        self._clients[0].wire.written.clear()


def bytecodes(task: Callable[[], None], by: str) -> Counter[str]:
    """Every bytecode that runs, by where it stands."""
    counted: Counter[str] = Counter()
    names: dict[Any, str] = {}

    def name_of(code: Any) -> str:
        path = Path(code.co_filename)
        place = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else f"({path.parent.name}/{path.name})"
        return f"{place} {code.co_qualname}" if by == "function" else place

    def trace(frame: Any, kind: str, _: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if kind == "opcode":
            code = frame.f_code
            name = names.get(code)
            if name is None:
                name = names[code] = name_of(code)
            counted[name] += 1
        return trace

    sys.settrace(trace)
    try:
        task()
    finally:
        sys.settrace(None)
    return Counter({name: count for name, count in counted.items() if "in_process" not in name})


def fastest_us(task: Callable[[], None], rounds: int, per_round: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        start_ns = process_time_ns()
        task()
        best = min(best, (process_time_ns() - start_ns) / 1000 / per_round)
    return best


def show(what: str, counted: Counter[str], times: int, us: float) -> None:
    print(f"{what}: {counted.total() / times:.1f} bytecodes, {us:.2f} us (fastest round)")
    for name, count in counted.most_common(45):
        print(f"  {count / times:8.1f}  {name}")


def read_requests(folder: Path, name: str) -> list[bytes]:
    data, found, at = (folder / f"{name}.bin").read_bytes(), [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        found.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return found


async def run(loop: Loop, options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_requests(Path(folder))
        requests = read_requests(Path(folder), "stream" if options.streams else options.size)
    config = RouterConfig(
        policy=options.policy, worker=tuple(f"http://127.0.0.1:{9}/{i}" for i in range(WORKERS)), server=ServerConfig()
    )
    app = create_app(config)
    assert isinstance(app, Split)
    started, messages = loop.create_future(), asyncio.Queue[dict[str, Any]]()

    async def send(message: Any) -> None:
        started.set_result(message)

    await messages.put({"type": "lifespan.startup"})
    serving = asyncio.ensure_future(app({"type": "lifespan", "state": {}}, messages.get, send))
    await started
    bench = Bench(loop, app, requests, options.in_flight)
    calm()
    over = loop.create_future()

    def work() -> None:  # in no task, as bytes come in
        try:
            if options.streams:
                measure_streams(bench, options)
            else:
                for _ in range(options.loop or WARM):
                    bench.one()
                if not options.loop:
                    measure(bench, options)
            over.set_result(None)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - raised by who waits
            over.set_exception(error)

    loop.call_soon(work)
    await over
    serving.cancel()


def measure(bench: Bench, options: argparse.Namespace) -> None:
    def some() -> None:
        for _ in range(PER_ROUND):
            bench.one()

    counted = bytecodes(some, options.by)
    show(f"a request of {options.size}", counted, PER_ROUND, fastest_us(some, ROUNDS, PER_ROUND))


def measure_streams(bench: Bench, options: argparse.Namespace) -> None:
    for _ in range(options.loop or 200):
        wire = bench.begin_stream()
        for _ in range(EVENTS):
            wire.protocol.data_received(EVENT)
        bench.end_stream(wire)
    if options.loop:
        return
    wire = bench.begin_stream()

    def events() -> None:
        for _ in range(2000):
            wire.protocol.data_received(EVENT)

    show("an event of a stream", bytecodes(events, options.by), 2000, fastest_us(events, ROUNDS, 2000))
    bench.end_stream(wire)

    def whole() -> None:
        for _ in range(100):
            bench.end_stream(bench.begin_stream())

    show("a stream without its events", bytecodes(whole, options.by), 100, fastest_us(whole, ROUNDS, 100))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SIZES), default="200B")
    parser.add_argument("--policy", default="expected_ttft")
    parser.add_argument("--by", choices=["file", "function"], default="file")
    parser.add_argument("--in-flight", type=int, default=1, help="requests that wait for their worker meanwhile")
    parser.add_argument("--streams", action="store_true")
    parser.add_argument("--loop", type=int, default=0, help="serve so many and print nothing")
    options = parser.parse_args()
    loop = Loop()
    loop.wires = []
    asyncio.set_event_loop(loop)
    loop.run_until_complete(run(loop, options))


if __name__ == "__main__":
    main()
