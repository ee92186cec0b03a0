"""One router with 1, 2 ... processes under the same load: requests a second, and CPU a request of all its processes.

`python benchmarks/several_processes.py` compiles the load generator and the backend of data_path, which share the cores
with the routers: with few cores they compete, and the rate says less than the CPU. Counts of processes take turns in
every round; figures are medians over the rounds, and only ratios within one run mean anything. On a large machine, pin
with taskset what should be pinned.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "data_path"))

import processes as started
from candidates import ROOT, Candidate
from prepared import write_requests

WORKERS = 4


def unpinned(stack: ExitStack, name: str, argv: list[str], folder: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """A process on any core until the stack ends."""
    process, log = stack.enter_context(started.running(name, argv, 0, folder))
    os.sched_setaffinity(process.pid, os.sched_getaffinity(0))
    return process, log


def until_all_serve(port: int, count: int) -> None:
    while count > 1:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            if f"trieway_processes {count:.1f}" in answer.read().decode():
                return
        time.sleep(0.1)


def measure(program: Path, port: int, connections: int, requests: int, file: Path) -> dict[str, float]:
    argv = [str(program), str(port), str(connections), str(requests), "0", "90", str(file)]
    found: dict[str, float] = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    found["lost"] = found["bad"] + found["errors"] + (requests - found["done"])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", default="1,2", help="counts to compare, with commas between")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--requests", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", default="200B,4kB,40kB")
    parser.add_argument("--out", type=Path, help="write the table here as well")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "bench", help="where programs are compiled")
    options = parser.parse_args()
    counts = [int(each) for each in options.processes.split(",")]
    options.work.mkdir(parents=True, exist_ok=True)
    started.compile_programs(options.work)
    files = options.work / "requests"
    write_requests(files)
    program = options.work / "load"
    samples: dict[tuple[str, int], list[tuple[float, float]]] = {}
    lost = 0
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        base = started.free_port(WORKERS + len(counts))
        backend, log = unpinned(stack, "backend", [str(options.work / "backend"), str(base), str(WORKERS)], folder)
        started.wait_ready(base, backend, log)
        routers: dict[int, started.Router] = {}
        for index, count in enumerate(counts):
            port = base + WORKERS + index
            argv = [sys.executable, "-m", "router", "serve", "--port", str(port), "--log-level", "warning"]
            argv += ["--processes", str(count)]
            for worker in range(base, base + WORKERS):
                argv += ["--worker", f"http://127.0.0.1:{worker}"]
            process, log = unpinned(stack, f"router-{count}", argv, folder)
            started.wait_ready(port, process, log)
            until_all_serve(port, count)
            candidate = Candidate(name=str(count), version="", command=lambda *_: [])
            routers[count] = started.Router(candidate, process, port)
            measure(program, port, 16, 1000, files / "4kB.bin")
        for round_ in range(options.rounds):
            for size in options.sizes.split(","):
                for count in counts if round_ % 2 else counts[::-1]:
                    router = routers[count]
                    before_s = router.cpu_s()
                    seen = measure(program, router.port, options.connections, options.requests, files / f"{size}.bin")
                    cpu_us = 1e6 * (router.cpu_s() - before_s) / options.requests
                    lost += int(seen["lost"])
                    samples.setdefault((size, count), []).append((seen["rate"], cpu_us))
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    about = (
        f"{datetime.now(UTC):%Y-%m-%d}, {head or 'unknown'}, {len(os.sched_getaffinity(0))} cores shared with the load "
        f"generator and the backend, {options.connections} connections, {options.rounds} rounds of "
        f"{options.requests:,} requests; medians"
    )
    lines = [
        about,
        "",
        "| body | processes | requests/s | ratio | CPU us a request | ratio |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for size in options.sizes.split(","):
        first_rate, first_cpu = (statistics.median(column) for column in zip(*samples[size, counts[0]], strict=True))
        for count in counts:
            rate, cpu_us = (statistics.median(column) for column in zip(*samples[size, count], strict=True))
            lines.append(
                f"| {size} | {count} | {rate:.0f} | {rate / first_rate:.2f} | {cpu_us:.0f} | {cpu_us / first_cpu:.2f} |"
            )
    if lost:
        lines += ["", f"VOID: {lost} requests were not answered well"]
    text = "\n".join(lines)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
