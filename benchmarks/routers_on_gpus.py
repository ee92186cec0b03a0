"""Routers side by side in front of SGLang servers that run already: the same trace, the same arrivals, empty caches.

Candidates take turns (the order is reversed in every other round), so that slow drifts of a machine hit all alike.
Prints one row per run and writes everything to a JSON file. A candidate is `trieway:POLICY` or `NAME=COMMAND`, in
which {port} and {workers} are filled in. A run with errors says so in its row.

Example:
    python benchmarks/routers_on_gpus.py TRACE --workers http://127.0.0.1:30000,http://127.0.0.1:30001 --rate 7
        --candidate trieway:expected_ttft
        --candidate 'smg=smg launch --worker-urls {workers} --host 127.0.0.1 --port {port}'
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import platform
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from loadtests.comparison import Run, Traffic, run_against
from loadtests.drive import Pace
from loadtests.endpoint import flush_cache, is_ok, wait_for
from loadtests.measures import Objective, RequestResult
from loadtests.traces import BlockRequest, read_trace

READY_S = 60.0


class Progress:
    """A line on stderr every 100 answers."""

    def __init__(self) -> None:
        self._ended = 0

    def begin(self, name: str, requests: int) -> None:
        self._ended = 0
        print(f"  {name}: {requests} requests", file=sys.stderr, flush=True)

    def result(self, result: RequestResult) -> None:
        self._ended += 1
        if self._ended % 100 == 0:
            print(f"  {self._ended} answered", file=sys.stderr, flush=True)


def poisson(trace: Sequence[Any], rate: float, longest: int, limit: int, seed: int) -> list[Any]:
    """The trace's first `limit` requests that fit the model's context, with Poisson arrivals at `rate` per second."""
    rng, at_s, kept = Random(seed), 0.0, []
    for request in trace:
        if isinstance(request, BlockRequest) and request.prompt_tokens + request.output_tokens > longest:
            continue
        at_s += rng.expovariate(rate)
        kept.append(dataclasses.replace(request, arrival_s=at_s))
        if len(kept) == limit:
            break
    return kept


def command_of(candidate: str, port: int, workers: Sequence[str]) -> tuple[str, list[str], str]:
    """A candidate's name, its command and the path that answers 200 when it is ready."""
    if candidate.startswith("trieway:"):
        policy = candidate.removeprefix("trieway:")
        argv = [sys.executable, "-m", "router", "serve", "--port", str(port), "--policy", policy]
        argv += ["--log-level", "warning"]
        for url in workers:
            argv += ["--worker", url]
        return policy, argv, "/ready"
    name, _, template = candidate.partition("=")
    return name, shlex.split(template.format(port=port, workers=" ".join(workers))), "/v1/models"


@contextmanager
def started(argv: Sequence[str]) -> Iterator[None]:
    """The router's process for the time of a block; its log's end is shown when it ends by itself."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
        try:
            yield
        finally:
            if process.poll() is not None:
                log.seek(0)
                print(log.read().decode(errors="replace")[-2000:], file=sys.stderr)
            else:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


async def one_run(candidate: str, traffic: Traffic, workers: Sequence[str]) -> Run:
    """One pass of the traffic through a fresh router over empty caches."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    name, argv, ready_path = command_of(candidate, port, workers)
    runs: list[Run] = []
    async with httpx.AsyncClient(trust_env=False) as control:
        for url in workers:
            await flush_cache(control, url, within_s=180.0)
        with started(argv):
            await wait_for(control, f"http://127.0.0.1:{port}{ready_path}", ok=is_ok, within_s=READY_S)
            await run_against(traffic, name, f"http://127.0.0.1:{port}", Progress(), runs)
    return runs[0]


def row(rate: float, round_: int, run: Run) -> dict[str, Any]:
    """The figures of one run."""
    s = run.summary
    ttft, e2e, itl = s.ttft_s, s.e2e_s, s.itl_s
    return {
        "rate": rate, "round": round_, "router": run.name, "requests": s.requests, "errors": s.errors,
        "error_kinds": dict(s.error_kinds), "cached_ratio": s.cached_token_ratio,
        "ttft_mean_s": ttft and ttft.mean, "ttft_p50_s": ttft and ttft.p50, "ttft_p90_s": ttft and ttft.p90,
        "ttft_p99_s": ttft and ttft.p99, "itl_p50_s": itl and itl.p50, "e2e_mean_s": e2e and e2e.mean,
        "goodput_ratio": s.goodput_ratio, "prompt_tokens_mean": s.prompt_tokens / max(1, s.requests - s.errors),
        "duration_s": s.duration_s, "lag_p99_s": s.lag_s and s.lag_s.p99,
    }  # fmt: skip


def show(figures: dict[str, Any]) -> str:
    """One row of the table, in Markdown."""
    f = {key: (float("nan") if value is None else value) for key, value in figures.items()}
    return (
        f"| {f['rate']:g} | {f['round']} | {f['router']} | {f['requests']} | {f['errors']} "
        f"| {100 * f['cached_ratio']:.1f} % "
        f"| {f['ttft_mean_s']:.2f} / {f['ttft_p50_s']:.2f} / {f['ttft_p90_s']:.2f} / {f['ttft_p99_s']:.2f} "
        f"| {1000 * f['itl_p50_s']:.1f} | {f['e2e_mean_s']:.2f} | {100 * f['goodput_ratio']:.0f} % |"
    )


HEAD = (
    "| requests/s | round | router | requests | errors | token hit | TTFT mean / p50 / p90 / p99 (s) | ITL p50 (ms) "
    "| E2E mean (s) | TTFT <= 1 s |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


async def main_async(options: argparse.Namespace) -> None:
    workers = options.workers.split(",")
    trace = read_trace(options.trace)
    rows: list[dict[str, Any]] = []
    print(HEAD, flush=True)
    for rate in options.rate:
        for round_ in range(1, options.rounds + 1):
            order = options.candidate if round_ % 2 else options.candidate[::-1]
            for candidate in order:
                requests = poisson(trace, rate, options.max_tokens, options.limit, options.seed + round_ - 1)
                objective = Objective(ttft_s=options.objective)
                traffic = Traffic(requests=requests, pace=Pace(), seed=options.seed + round_ - 1, objective=objective)
                rows.append(row(rate, round_, await one_run(candidate, traffic, workers)))
                print(show(rows[-1]), flush=True)
                options.out.write_text(json.dumps({"machine": platform.platform(), "runs": rows}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--workers", required=True, help="URLs of running SGLang servers, with commas between")
    parser.add_argument("--candidate", action="append", required=True)
    parser.add_argument("--rate", action="append", type=float, required=True, help="requests per second; repeatable")
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--max-tokens", type=int, default=32_000, help="longer requests of the trace are left out")
    parser.add_argument("--objective", type=float, default=1.0, help="TTFT objective in seconds")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("routers.json"))
    asyncio.run(main_async(parser.parse_args()))


if __name__ == "__main__":
    main()
