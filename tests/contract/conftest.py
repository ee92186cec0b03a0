"""The servers under contract and ways to talk to them: simulated by default, real SGLang with --worker=sglang.

Every test gets the same kinds of server whichever it is. Where the two may differ, `Server.differs` says so, and
fails unless workers/simulated/DIFFERENCES.md lists it. Prompts are fresh for every test: servers live for the session.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from workers.sglang.cpu.flavours import EMBEDDING, GUARDED, KV_CAPACITY_TOKENS, MODEL, OPEN, Flavour
from workers.sglang.cpu.server import CpuServer, default_environment, free_ports

ROOT = Path(__file__).resolve().parents[2]
DIFFERENCES = ROOT / "workers" / "simulated" / "DIFFERENCES.md"
CONTEXT_LENGTH = 16_384  # the tiny model's
ANSWER_WITHIN_S = 60.0
TEST_WITHIN_S = 180.0
STATE_WITHIN_S = 30.0  # loads are published after the answer, and a real server on a busy machine is slow


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--worker",
        choices=["simulated", "sglang"],
        default="simulated",
        help="what the contract suite runs against; sglang needs workers/sglang/cpu/setup.sh to have been run",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Starting real servers has a limit of its own, so that of a test counts the test alone."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TEST_WITHIN_S, func_only=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One running server and a client for it."""

    url: str
    kind: str
    flavour: Flavour
    publish_port: int
    client: httpx.Client
    tokenizer_path: Path | None = None

    @property
    def replay_port(self) -> int:
        return self.publish_port + self.flavour.dp_size

    @property
    def page_size(self) -> int:
        return self.flavour.page_size

    def differs(self, what: str) -> bool:
        """Whether this is the simulated server; `what` must be the first cell of a row in DIFFERENCES.md."""
        rows = [line.split("|")[1].strip() for line in DIFFERENCES.read_text().splitlines() if line.startswith("| ")]
        assert what in rows, f"{what!r} is not listed in {DIFFERENCES.relative_to(ROOT)}"
        return self.kind == "simulated"

    def get(self, path: str, **given: Any) -> httpx.Response:
        return self.client.get(path, **given)

    def post(self, path: str, body: object, **given: Any) -> httpx.Response:
        return self.client.post(path, json=body, **given)

    def ok(self, path: str, body: object, **given: Any) -> Any:
        """The JSON of an answer that must be 200."""
        answer = self.post(path, body, **given)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def chat(self, messages: str | list[dict[str, Any]], **fields: Any) -> Any:
        return self.ok("/v1/chat/completions", chat_body(messages, **fields))

    def generate(self, ids: Sequence[int] | str, tokens: int = 1, **fields: Any) -> Any:
        """/generate for token ids or text, exactly `tokens` of output."""
        return self.ok("/generate", generate_body(ids, tokens, **fields))

    def tokenize(self, messages: list[dict[str, Any]]) -> list[int]:
        tokens: list[int] = self.ok("/tokenize", {"messages": messages})["tokens"]
        return tokens

    def events(self, path: str, body: dict[str, Any], **given: Any) -> list[Any]:
        """All events of a stream that must be 200 and end with [DONE], which is left out."""
        with self.open_stream(path, body, **given) as stream:
            events = list(stream)
        assert events[-1] == "[DONE]"
        return events[:-1]

    @contextlib.contextmanager
    def open_stream(self, path: str, body: dict[str, Any], **given: Any) -> Iterator[Iterator[Any]]:
        """Decoded events as they come; leaving the block hangs up."""
        with self.client.stream("POST", path, json={**body, "stream": True}, **given) as response:
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            yield _decoded(response.iter_lines())

    def loads(self, rank: int = 0) -> dict[str, Any]:
        reports: list[dict[str, Any]] = self.get("/v1/loads").json()["loads"]
        return reports[rank]

    def idle(self) -> bool:
        load = self.loads()
        return load["num_running_reqs"] == 0 and load["num_waiting_reqs"] == 0

    def flush(self) -> None:
        """Empties the cache once the server is idle."""
        answer = self.client.post("/flush_cache?timeout=30")
        assert answer.status_code == 200, answer.text


def chat_body(messages: str | list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    return {"model": MODEL, "messages": messages, "temperature": 0, "ignore_eos": True, **fields}


def generate_body(prompt: Sequence[int] | str, tokens: int, **fields: Any) -> dict[str, Any]:
    params = {"max_new_tokens": tokens, "ignore_eos": True, "temperature": 0, **fields.pop("sampling_params", {})}
    kind = "text" if isinstance(prompt, str) else "input_ids"
    return {kind: prompt if isinstance(prompt, str) else list(prompt), "sampling_params": params, **fields}


def _decoded(lines: Iterator[str]) -> Iterator[Any]:
    for line in lines:
        if line:
            assert line.startswith("data: "), line
            yield line[6:] if line == "data: [DONE]" else json.loads(line[6:])


def until(condition: Callable[[], object], within_s: float = STATE_WITHIN_S) -> None:
    """Looks until the condition holds; fails the test when it never does."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, f"still not so after {within_s:g} s"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def worker_kind(request: pytest.FixtureRequest) -> str:
    """What runs: simulated, or sglang."""
    chosen: str = request.config.getoption("--worker", "simulated")
    return chosen


@pytest.fixture(scope="session")
def environment() -> Path:
    """Where setup.sh built SGLang."""
    return Path(os.environ.get("TRIEWAY_SGLANG_ENV") or default_environment()).resolve()


_FLAVOUR_OF_FIXTURE = {"worker": OPEN, "guarded": GUARDED, "embedder": EMBEDDING}


@pytest.fixture(scope="session")
def servers(
    request: pytest.FixtureRequest, worker_kind: str, environment: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Server]]:
    """Those that the session's tests ask for, started together because a real one takes most of a minute."""
    wanted = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    flavours = [flavour for name, flavour in _FLAVOUR_OF_FIXTURE.items() if name in wanted]
    logs = ROOT / "out" / "contract" if worker_kind == "sglang" else tmp_path_factory.mktemp("logs")
    with contextlib.ExitStack() as stack:
        start = _start_real if worker_kind == "sglang" else _start_simulated
        yield start(stack, flavours, environment, logs)


def _start_real(
    stack: contextlib.ExitStack, flavours: Sequence[Flavour], environment: Path, logs: Path
) -> dict[str, Server]:
    started = []
    for flavour in flavours:
        process = CpuServer(flavour, environment, logs / f"sglang-{flavour.name}.log")
        stack.callback(process.stop)
        process.start()
        started.append(process)
    for process in started:
        process.wait_ready()
    return {
        process.flavour.name: _server(
            stack, process.url, "sglang", process.flavour, process.first_kv_port, process.model_path
        )
        for process in started
    }


def _start_simulated(
    stack: contextlib.ExitStack, flavours: Sequence[Flavour], environment: Path, logs: Path
) -> dict[str, Server]:
    started = {}
    for flavour in flavours:
        first_port = free_ports(1 + flavour.port_count)
        flags = flavour.shared_flags(first_port + 1)
        flags += [] if flavour.reports else ["--no-cache-report", "--no-metrics"]
        flags += ["--model", MODEL, "--kv-capacity-tokens", str(KV_CAPACITY_TOKENS)]
        flags += ["--context-length", str(CONTEXT_LENGTH), "--port", str(first_port)]
        log = logs / f"{flavour.name}.log"
        process = stack.enter_context(program(["workers", "simulate", *flags], log))
        url = f"http://127.0.0.1:{first_port}"
        wait_for(f"{url}/health", process, log)
        started[flavour.name] = _server(stack, url, "simulated", flavour, first_port + 1, None)
    return started


def _server(
    stack: contextlib.ExitStack, url: str, kind: str, flavour: Flavour, kv_port: int, tokenizer_path: Path | None
) -> Server:
    headers = {"authorization": "Bearer contract-key"} if flavour.keys else {}
    limits = httpx.Limits(max_keepalive_connections=0)  # SGLang closes idle connections after 5 s: no races with that
    client = httpx.Client(base_url=url, headers=headers, timeout=ANSWER_WITHIN_S, limits=limits)
    stack.enter_context(client)
    return Server(
        url=url, kind=kind, flavour=flavour, publish_port=kv_port, client=client, tokenizer_path=tokenizer_path
    )


@contextlib.contextmanager
def program(argv: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m argv` for the length of the block; its output goes to `log`."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *argv], stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=ROOT
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, within_s: float = 60.0) -> None:
    """Until `url` answers 200; fails, with the end of the log, when it never does or the process ends before."""
    said: object = None
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            answer = httpx.get(url, timeout=5, verify=False)
            if answer.status_code == 200:
                return
            said = answer.text
        except httpx.HTTPError as error:
            said = repr(error)
        time.sleep(0.05)
    tail = log.read_text(errors="replace")[-3000:]
    pytest.fail(f"{process.args} (status {process.returncode}) did not answer {url}: {said}; its log ends:\n{tail}")


@pytest.fixture
def worker(servers: dict[str, Server]) -> Server:
    """Pages of 16 tokens, KV events, cache report and metrics, no keys."""
    return servers[OPEN.name]


@pytest.fixture
def guarded(servers: dict[str, Server]) -> Server:
    """Two DP ranks, pages of one token, keys, KV events; no cache report and no metrics."""
    return servers[GUARDED.name]


@pytest.fixture
def embedder(servers: dict[str, Server]) -> Server:
    """A model that only embeds."""
    return servers[EMBEDDING.name]


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., None]:
    """Waits for a condition: `until(lambda: ...)`."""
    return until


@pytest.fixture(name="program")
def program_fixture() -> Callable[..., contextlib.AbstractContextManager[subprocess.Popen[bytes]]]:
    """Runs a module of this repository for the length of a block."""
    return program


@pytest.fixture(name="wait_for")
def wait_for_fixture() -> Callable[..., None]:
    """Waits for a URL to answer 200."""
    return wait_for


@pytest.fixture
def fresh_ids(request: pytest.FixtureRequest) -> Callable[[int], list[int]]:
    """Token ids that no other test sends; ordinary ones of any vocabulary."""
    draw = random.Random(request.node.nodeid)
    return lambda count: [draw.randrange(100, 2000) for _ in range(count)]


@pytest.fixture
def fresh_text(request: pytest.FixtureRequest) -> Callable[[int], str]:
    """Words that no other test sends."""
    draw = random.Random(request.node.nodeid)
    return lambda words: " ".join("".join(draw.choices("abcdefghijklmnop", k=6)) for _ in range(words))
