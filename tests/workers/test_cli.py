"""`simulate` as a process: what it prints, how it stops, and how it refuses what it cannot do."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import httpx
import pytest

from workers.cli import commands

ROOT = Path(__file__).resolve().parents[2]


def start(*flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "workers", "simulate", *flags], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def simulated() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running process and its URL, read from the line it prints."""
    process = start("--port", "0", "--model", "tiny")
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.search(r"simulated worker 'tiny' on (http://127\.0\.0\.1:\d+) ", line)
    assert found, line
    yield process, found.group(1)
    process.kill()
    process.wait()
    process.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_one_line_serves_without_a_word_and_stops_on_a_signal(
    simulated: tuple[subprocess.Popen[str], str], number: signal.Signals
) -> None:
    process, url = simulated
    with httpx.Client(base_url=url) as client:
        assert client.get("/v1/models").json()["data"][0]["id"] == "tiny"
        body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 100_000, "stream": True}
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            next(response.iter_bytes())
            process.send_signal(number)  # in the middle of an answer
            assert process.wait(timeout=60) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--spead", "2"], "--spead"),
        (["--speed", "fast"], "--speed"),
        (["--speed", "0"], "--speed"),
        (["--page-size", "0"], "--page-size"),
        (["--faults", "nowhere.toml"], "nowhere.toml"),
        (["--cost-model", "nowhere.toml"], "nowhere.toml"),
        (["--kv-events-config", "{"], "--kv-events-config"),
        (["--schedule-policy", "random"], "--schedule-policy"),
        (["--host", "no.such.host.invalid"], "no.such.host.invalid"),
    ],
    ids=str,
)
def test_what_it_cannot_do_is_one_clear_error_at_start(flags: list[str], words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "workers", "simulate", "--port", "0", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = start("--port", port)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert port in errors
    assert "Traceback" not in errors


def test_the_commands_offered_to_trieway_are_click_commands_with_help() -> None:
    assert all(isinstance(command, click.Command) for command in commands)
    assert "simulate" in {command.name for command in commands}
    for command in commands:
        assert command.help
        assert all(option.help for option in command.params if isinstance(option, click.Option))
