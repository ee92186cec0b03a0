"""SGLang's own clients through the router, unchanged: its benchmark, and a program in its frontend language.

Clients run with the environment that workers/sglang/cpu/setup.sh makes, so only with --worker=sglang, or where
TRIEWAY_SGLANG_ENV names it. The router stands before two simulated workers and, with --worker=sglang, before the real
one too.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from workers.sglang.cpu.flavours import MODEL
from workers.sglang.cpu.server import free_ports

PROGRAM = Path(__file__).parent / "programs" / "frontend_program.py"
PROMPTS, AT_ONCE, OUTPUT_TOKENS = 50, 10, 8
CLIENT_WITHIN_S = 170.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A router and what stands behind it."""

    url: str
    workers: Sequence[str]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What stands behind the router."""
    if "stack" in metafunc.fixturenames:
        real = ["sglang"] if metafunc.config.getoption("--worker", "simulated") == "sglang" else []
        metafunc.parametrize("stack", ["simulated", *real], indirect=True)


@pytest.fixture
def sglang_python(environment: Path, worker_kind: str) -> Path:
    if worker_kind == "simulated" and "TRIEWAY_SGLANG_ENV" not in os.environ:
        pytest.skip("needs SGLang's clients; `make test-sglang` installs and tests them")
    assert (environment / ".ready").exists(), f"no SGLang in {environment}"
    return environment / "bin" / "python"


@pytest.fixture
def stack(
    request: pytest.FixtureRequest,
    worker: Any,
    tmp_path: Path,
    program: Callable[..., Any],
    wait_for: Callable[..., None],
) -> Iterator[Stack]:
    """The router in front of two simulated workers, or of the session's real server."""
    with contextlib.ExitStack() as running:
        if request.param == "simulated":
            urls = []
            for number in range(2):
                port = free_ports(1)
                argv = ["workers", "simulate", "--port", str(port), "--model", MODEL]
                log = tmp_path / f"worker{number}.log"
                process = running.enter_context(program(argv, log))
                urls.append(f"http://127.0.0.1:{port}")
                wait_for(f"{urls[-1]}/v1/models", process, log)
        else:
            urls = [worker.url]
        port = free_ports(1)
        argv = ["router", "serve", "--port", str(port), *(flag for url in urls for flag in ("--worker", url))]
        router = running.enter_context(program(argv, tmp_path / "router.log"))
        wait_for(f"http://127.0.0.1:{port}/ready", router, tmp_path / "router.log")
        yield Stack(url=f"http://127.0.0.1:{port}", workers=urls)


def run_client(python: Path, *argv: str) -> str:
    """What the client printed. Fails with all of it when the client fails."""
    done = subprocess.run(
        [str(python), "-W", "ignore", *argv],
        capture_output=True,
        text=True,
        timeout=CLIENT_WITHIN_S,
        check=False,
        env={"HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin", "HOME": "/tmp", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def conversations(path: Path) -> Path:
    """A file in the format of ShareGPT, from which the benchmark's `random` data set cuts its prompts."""
    draw = random.Random(0)
    turns = [" ".join("".join(draw.choices("abcdefgh", k=5)) for _ in range(60)) for _ in range(2 * PROMPTS)]
    pairs = [
        {"conversations": [{"from": "human", "value": ask}, {"from": "gpt", "value": answer}]}
        for ask, answer in zip(turns[::2], turns[1::2], strict=True)
    ]
    path.write_text(json.dumps(pairs))
    return path


@pytest.mark.sglang
@pytest.mark.parametrize("backend", ["sglang", "sglang-oai-chat"])
def test_the_benchmark_completes_every_request(
    sglang_python: Path, stack: Stack, environment: Path, tmp_path: Path, backend: str
) -> None:
    report = tmp_path / "report.jsonl"
    shown = run_client(
        sglang_python,
        *("-m", "sglang.bench_serving", "--backend", backend, "--base-url", stack.url),
        *("--dataset-name", "random", "--dataset-path", str(conversations(tmp_path / "sharegpt.json"))),
        *("--tokenizer", str(environment / "tiny-model"), "--num-prompts", str(PROMPTS)),
        *("--max-concurrency", str(AT_ONCE), "--random-input-len", "64", "--random-output-len", str(OUTPUT_TOKENS)),
        *("--random-range-ratio", "1", "--output-file", str(report), "--disable-tqdm", "--flush-cache", "--seed", "7"),
    )
    (result,) = [json.loads(line) for line in report.read_text().splitlines()]

    assert result["completed"] == PROMPTS, shown
    assert result["total_output_tokens"] == PROMPTS * OUTPUT_TOKENS
    assert result["backend"] == backend
    assert result["median_ttft_ms"] > 0
    assert result["server_info"]["version"] == "0.5.21"
    metrics = httpx.get(f"{stack.url}/metrics").text
    counted = [line for line in metrics.splitlines() if line.startswith("trieway_requests_total{")]
    assert sum(float(line.rsplit(" ", 1)[1]) for line in counted) >= PROMPTS


@pytest.mark.sglang
def test_a_frontend_program_runs_as_against_one_server(sglang_python: Path, stack: Stack) -> None:
    result = json.loads(run_client(sglang_python, str(PROGRAM), stack.url).splitlines()[-1])

    assert result["version"] == "0.5.21"
    assert all(result["answers"])
    assert result["cached"][0] < 32
    assert result["cached"][0] < result["cached"][1] < result["cached"][2]
    several = len(stack.workers) > 1  # the policy may send some of the branches to another worker
    assert (max if several else min)(result["fork"]["cached"]) > 64
    assert re.fullmatch("[0-9]{4}", result["number"])
    assert re.match("[-+]?[0-9]", result["whole"].strip())
    assert json.loads(result["object"]).keys() == {"ok", "colour"}
    assert result["streamed"][0] == result["streamed"][1] != ""
    assert len(result["batch"]) == 4
    assert all(result["batch"])
    assert result["chosen"] in {"blue", "green"}


def test_an_operators_calls_reach_every_worker(stack: Stack) -> None:
    info = httpx.get(f"{stack.url}/server_info").json()
    flushed = httpx.post(f"{stack.url}/flush_cache?timeout=10", timeout=60)
    aborted = httpx.post(f"{stack.url}/abort_request", json={"rid": "nobody"})

    assert len(info["internal_states"]) == len(stack.workers)
    assert (flushed.status_code, aborted.status_code) == (200, 200)
    assert httpx.get(f"{stack.url}/health_generate", timeout=60).status_code == 200
    assert httpx.post(f"{stack.url}/tokenize", json={"model": MODEL, "prompt": "x"}).json()["count"] == 1
