"""Exported calls: bench_serving's file and our trace hold the same, at times that bench_serving would draw."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from loadtests.load_request import LoadRequest
from loadtests.loadtest_command import loadtest
from loadtests.traces import read_trace

FLAGS = ("--calls", "6", "--calls-per-s", "8", "--seed", "3")


def test_both_files_hold_the_same_calls(tmp_path: Path) -> None:
    openai, trace = tmp_path / "o.jsonl", tmp_path / "t.jsonl"
    arguments = ("export", "agent_loop", *FLAGS, "--openai", str(openai), "--trace", str(trace))
    result = CliRunner().invoke(loadtest, arguments)

    assert result.exit_code == 0, result.output
    lines = [msgspec.json.decode(line) for line in openai.read_bytes().splitlines()]
    read = [one for one in read_trace(trace) if isinstance(one, LoadRequest)]
    assert [(line["messages"], line["max_tokens"], line["tools"]) for line in lines] == [
        (list(one.messages), one.max_tokens, one.tools) for one in read
    ]
    assert len({one.session_id for one in read}) == 6
    assert {one.workload for one in read} == {"agent_loop"}


def test_calls_leave_when_bench_serving_would_send_them(tmp_path: Path) -> None:
    trace = tmp_path / "t.jsonl"
    CliRunner().invoke(
        loadtest, ("export", "uniform", *FLAGS, "--openai", str(tmp_path / "o.jsonl"), "--trace", str(trace))
    )
    np.random.seed(3)
    pauses = [np.random.exponential(1.0 / 8) for _ in range(5)]  # as it does, one after the other

    assert [one.arrival_s for one in read_trace(trace)] == pytest.approx([0.0, *np.cumsum(pauses)], abs=1e-6)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        loadtest, ("export", "uniform", "--openai", str(tmp_path / "no" / "o"), "--trace", str(tmp_path / "t"))
    )

    assert result.exit_code == 1
    assert "cannot write" in result.stderr
    assert "No such file or directory" in result.stderr
