"""`trieway loadtest` as people call it, against a stub server that is a process of its own."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from loadtests.loadtest_command import loadtest
from loadtests.table import CSV_COLUMNS
from ports import free_port

STUB = str(Path(__file__).parent / "programs" / "stub_server.py")


def serve(tmp_path: Path, mode: str) -> Iterator[str]:
    """The URL of a stub router with two workers, once it answers."""

    port = free_port()
    command = [sys.executable, STUB, "router", "--mode", mode, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--policy", "prefix_match", "--worker", "a", "--worker", "b"]
    process = subprocess.Popen(command, env={**os.environ, "STUB_JOURNAL": str(tmp_path / "journal")})
    url = f"http://127.0.0.1:{port}"
    until_s = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(f"{url}/ready", timeout=5).close()
            break
        except urllib.error.URLError:
            assert time.monotonic() < until_s, "the stub does not answer"
            time.sleep(0.02)
    yield url
    process.kill()
    process.wait()


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    yield from serve(tmp_path, "")


@pytest.fixture
def hanging_endpoint(tmp_path: Path) -> Iterator[str]:
    yield from serve(tmp_path, "hangs")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "chat.jsonl"
    line = {"session_id": "s", "arrival_ms": 5, "messages": [{"role": "user"}], "expected_output_tokens": 2}
    path.write_bytes(b"\n".join(msgspec.json.encode({**line, "turn": turn}) for turn in range(4)))
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(loadtest, [str(argument) for argument in arguments])


def test_a_trace_through_an_endpoint_prints_one_table(endpoint: str, trace: Path) -> None:
    result = call("trace", trace, "--endpoint", endpoint + "/v1/")
    assert result.exit_code == 0, result.output
    row = next(line for line in result.stdout.splitlines() if endpoint in line and "│" in line)
    cells = [cell.strip() for cell in row.strip("│ ").split("│")]
    assert cells[1:4] == ["4", "0", "80.0 %"]
    assert re.fullmatch(r"\d+ / \d+ / \d+", cells[4])
    assert cells[7] == "1.00 / 1.00"
    assert result.stderr == f"{endpoint}: 4 requests\n"


def test_json_and_csv_hold_what_the_table_is_made_of(endpoint: str, trace: Path, tmp_path: Path) -> None:
    table = tmp_path / "out.csv"
    result = call("trace", trace, "--endpoint", endpoint, "--limit", 3, "--json", "--csv", table)
    said = msgspec.json.decode(result.stdout)
    assert (said["source"], said["runs"][0]["requests"], said["runs"][0]["cached_token_ratio"]) == (
        "chat.jsonl",
        3,
        0.8,
    )
    assert "api_key" not in said
    header, *rows = csv.reader(table.read_text().splitlines())
    assert header == list(CSV_COLUMNS)
    assert [(row[1], row[2], row[9], row[10], row[13]) for row in rows] == [
        ("s", str(turn), "10", "8", "") for turn in range(3)
    ]


def test_a_generated_workload_needs_no_trace(endpoint: str) -> None:
    result = call(
        "workload", "uniform", "--sessions", 5, "--sessions-per-s", 1000, "--endpoint", endpoint, "--json"
    )  # fmt: skip
    assert msgspec.json.decode(result.stdout)["runs"][0]["requests"] == 5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("trace", "{trace}", "--policy", "prefix_mach"), "Did you mean 'prefix_match'?"),
        (("trace", "{trace}", "--endpoint", "http://127.0.0.1:1"), "nothing answers at http://127.0.0.1:1/v1/models"),
        (("trace", "{trace}", "--endpoint", "localhost"), "nothing answers at localhost/v1/models"),
        (
            ("trace", "{trace}", "--endpoint", "http://x", "--policy", "random"),
            "goes with neither --policy nor --speed",
        ),
        (("trace", "{bad}"), "bad.jsonl:1: field 'turn': Expected `int`, got `str`"),
        (("trace", "/no/such/file"), "does not exist"),
        (("workload", "rag", "--set", "document=3"), "rag has no size 'document'. Did you mean 'documents'?"),
        (("workload", "rag", "--set", "documents=many"), "Expected `int`, got `str`"),
        (("workloat", "rag"), "there is no command and no scenario 'workloat'. Did you mean 'workload'?"),
        (("quik",), "Did you mean 'quick'? Commands: "),
    ],
)
def test_bad_input_is_one_clear_error(trace: Path, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"turn": "x", "messages": []}')
    result = call(*(argument.format(trace=trace, bad=bad) for argument in arguments))
    assert result.exit_code in (1, 2)
    assert says in result.stderr
    assert "Traceback" not in result.output


def test_ctrl_c_prints_what_was_measured_and_exits_as_shells_expect(hanging_endpoint: str, trace: Path) -> None:
    command = [sys.executable, "-m", "loadtests", "loadtest", "trace", str(trace), "--endpoint", hanging_endpoint]
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().endswith("4 requests\n")
        journal = trace.parent / "journal"
        while journal.read_text().count("call") < 3:  # the third call hangs
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "(interrupted)" in output
    assert errors == "Interrupted; everything that was started has been stopped.\n"
