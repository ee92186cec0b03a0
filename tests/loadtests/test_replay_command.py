"""`trieway replay` as people call it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from loadtests.replay_command import replay_command

LINE = '{{"timestamp": {at}, "input_length": {tokens}, "output_length": 8, "hash_ids": {blocks}}}\n'
FIELDS = {
    "policy", "token_hit_ratio", "ttft_mean_s", "ttft_p50_s", "ttft_p90_s", "ttft_p99_s", "e2e_mean_s",
    "goodput_ratio", "imbalance",
}  # fmt: skip


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "small.jsonl"
    path.write_text("".join(LINE.format(at=index * 500, tokens=1500, blocks=[0, 1, index]) for index in range(30)))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(replay_command, [str(one) for one in arguments])


def test_json_has_one_row_per_policy_and_repeats_by_seed(trace: Path) -> None:
    flags = ("--policy", "round_robin", "--policy", "prefix_match:load_slack=9", "--workers", 3, "--rate", 2, "--json")

    first, again = run(trace, *flags, "--seed", 1), run(trace, *flags, "--seed", 1)

    assert first.exit_code == 0
    assert first.stdout == again.stdout
    rows = msgspec.json.decode(first.stdout)["results"]
    assert [row["policy"] for row in rows] == ["round_robin", "prefix_match:load_slack=9"]
    assert all(row.keys() >= FIELDS for row in rows)
    assert rows[0]["token_hit_ratio"] < rows[1]["token_hit_ratio"]
    assert all(0 < row["ttft_p50_s"] <= row["ttft_p99_s"] <= row["e2e_p99_s"] for row in rows)


def test_the_table_has_a_line_for_each_policy_and_progress_goes_to_standard_error(trace: Path) -> None:
    result = run(trace, "--policy", "random", "--policy", "power_of_two", "--objective", "0.5")

    assert result.exit_code == 0
    assert "random" in result.stdout
    assert "power_of_two" in result.stdout
    assert "<= 0.5 s" in result.stdout
    assert "30 requests in" in result.stderr
    assert "30 requests in" not in result.stdout


def test_a_bad_line_is_named_and_nothing_runs(trace: Path) -> None:
    with trace.open("a") as file:
        file.write('{"timestamp": 1, "input_length": "long", "output_length": 8, "hash_ids": [1]}\n')

    result = run(trace, "--json")

    assert result.exit_code == 1
    assert "small.jsonl:31: field 'input_length'" in result.stderr
    assert result.stdout == ""
    assert "requests in" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere.jsonl",), "no such file"),
        (("multi_turn", "--policy", "prefix_mach"), "Did you mean 'prefix_match'"),
        (("multi_turn", "--policy", "prefix_match:slack=1"), "load_slack"),
        (("multi_turn", "--workers", "0"), "--workers"),
        (("multi_turn", "--rate", "0"), "--rate"),
    ],
)
def test_what_was_typed_wrong_is_named(arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments)

    assert result.exit_code != 0
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_a_workload_needs_no_file_and_refused_requests_are_remarked() -> None:
    result = run("multi_turn", "--limit", 4, "--workers", 2, "--capacity", 900, "--policy", "round_robin")

    assert result.exit_code == 0
    assert "requests were refused, for example:" in result.stdout


def test_a_plot_is_written_and_an_unknown_suffix_is_named(trace: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "out.png", tmp_path / "out.xyz"

    result = run(trace, "--policy", "round_robin", "--plot", good)
    refused = run(trace, "--policy", "round_robin", "--plot", bad)

    assert result.exit_code == 0
    assert good.read_bytes().startswith(b"\x89PNG")
    assert refused.exit_code == 1
    assert "out.xyz" in refused.stderr
    assert not bad.exists()
