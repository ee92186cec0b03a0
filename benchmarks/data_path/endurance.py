"""What lasting load costs: memory of the router with idle streams open, and memory over many requests.

    python benchmarks/data_path/endurance.py streams [--count 10000]
    python benchmarks/data_path/endurance.py requests [--count 1000000]

Starts this checkout's router with its default policy before the benchmark's own workers, prints what it saw as JSON,
and ends with exit code 1 where a figure is not reached: 1,000 MB for the streams, and for requests less than 10 bytes
a request over the second half. Streams need more than two open files each (`ulimit -Hn`; root may raise it). Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import candidates as known
from candidates import ROOT
from prepared import write_requests
from processes import Router, compile_programs, free_port, running, wait_ready

WORKERS = 4
EVENT_GAP_100US = 1_200_000
"""A stream's second event comes two minutes after its first: until then it is idle."""
MOST_MB = 1000.0
MOST_SLOPE = 10.0
"""Bytes a request, over the second half."""
ROOM = ("--admission-max-in-flight", "100000", "--max-connections", "100000", "--max-connections-per-address", "100000")


def allow_files(wanted: int) -> int:
    """Raise this process's limit, which its children inherit; what it is then."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    except (ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


async def one_stream(port: int, began: asyncio.Event, closing: asyncio.Event) -> bool:
    """Ask for a stream, read its first event, and hold it until `closing`; whether that worked."""
    body = json.dumps(
        {"model": "mock", "messages": [{"role": "user", "content": "Hello " * 20}], "stream": True,
         "max_tokens": 2, "seed": EVENT_GAP_100US}
    ).encode()  # fmt: skip
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(b"\n\n")
    except (OSError, asyncio.IncompleteReadError):
        began.set()
        return False
    began.set()
    await closing.wait()
    writer.transport.abort()
    return head.startswith(b"HTTP/1.1 200")


async def streams(router: Router, count: int) -> dict[str, float]:
    before_mb, closing = router.memory_mb(), asyncio.Event()
    held: list[asyncio.Task[bool]] = []
    begun: list[asyncio.Event] = []
    async with asyncio.timeout(100), asyncio.TaskGroup() as group:
        for _ in range(count):
            begun.append(asyncio.Event())
            held.append(group.create_task(one_stream(router.port, begun[-1], closing)))
            if len(held) % 200 == 0:
                await begun[-1].wait()
        for each in begun:
            await each.wait()
        memory_mb, cpu_s = router.memory_mb(), router.cpu_s()
        await asyncio.sleep(5)
        idle_ms_per_s = (router.cpu_s() - cpu_s) / 5 * 1000
        closing.set()
    return {
        "streams": sum(task.result() for task in held),
        "lost": count - sum(task.result() for task in held),
        "memory_mb": round(memory_mb, 1),
        "memory_before_mb": round(before_mb, 1),
        "kb_per_stream": round((memory_mb - before_mb) * 1024 / count, 2),
        "idle_cpu_ms_per_s": round(idle_ms_per_s, 1),
    }


async def requests(router: Router, count: int, program: Path, file: Path) -> dict[str, object]:
    """Memory after every twentieth of `count` requests of 4 kB, no two of them equal."""
    seen: list[tuple[int, float]] = []
    lost = 0
    began_s = time.monotonic()
    for _ in range(20):
        process = await asyncio.create_subprocess_exec(
            program, str(router.port), "16", str(count // 20), "0", "3600", file, stdout=asyncio.subprocess.PIPE
        )
        answer = json.loads((await process.communicate())[0])
        lost += answer["bad"] + answer["errors"] + count // 20 - answer["done"]
        seen.append((len(seen) * (count // 20) + count // 20, round(router.memory_mb(), 2)))
    half = seen[len(seen) // 2 :]
    slope = (half[-1][1] - half[0][1]) * 2**20 / (half[-1][0] - half[0][0])
    return {"requests": count, "lost": lost, "seconds": round(time.monotonic() - began_s, 1),
            "bytes_per_request_in_the_second_half": round(slope, 2), "memory_mb_after": seen}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=("streams", "requests"))
    parser.add_argument("--count", type=int, help="how many (10,000 streams, 1,000,000 requests)")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "bench")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    compile_programs(options.work)
    write_requests(options.work / "requests")
    count = options.count or {"streams": 10_000, "requests": 1_000_000}[options.measure]
    files = allow_files(2 * count + 1000) if options.measure == "streams" else 0
    if options.measure == "streams" and files < 2 * count + 300:
        raise SystemExit(f"{files} open files are allowed (ulimit -Hn): too few for {count} streams")
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary, ExitStack() as stack:
        base = free_port(WORKERS + 2)
        workers = list(range(base, base + WORKERS))
        argv = [str(options.work / "backend"), str(base), str(WORKERS)]
        wait_ready(base, *stack.enter_context(running("backend", argv, cores[-1], Path(temporary))))
        candidate, port = known.trieway(None), base + WORKERS
        argv = [*candidate.command(port, workers, Path(temporary)), *ROOM]
        process, log = stack.enter_context(running("trieway", argv, cores[0], Path(temporary)))
        wait_ready(port, process, log)
        router = Router(candidate, process, port)
        if options.measure == "streams":
            report: dict[str, object] = dict(asyncio.run(streams(router, count)))
            good = not report["lost"] and float(str(report["memory_mb"])) < MOST_MB
        else:
            file = options.work / "requests" / "4kB.bin"
            report = asyncio.run(requests(router, count, options.work / "load", file))
            slope = float(str(report["bytes_per_request_in_the_second_half"]))
            good = not report["lost"] and slope < MOST_SLOPE
    print(json.dumps(report))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
