"""`trieway replay` as people call it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import zstandard
from click.testing import CliRunner, Result

from loadtests.replay_command import replay_command
from workers.simulated.cost_file import write_cost_model
from workers.simulated.cost_model import H200_QWEN3_8B

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


def test_a_decision_log_or_a_folder_of_them_is_replayed_like_a_trace(tmp_path: Path) -> None:
    head = '{"trieway_decision_log":1,"trieway":"0.1","started_at":"","block_bytes":256,"text":false}'
    lines = [
        f'{{"request_id":"{index}","at_unix_s":{1000.0 + index},"endpoint":"/generate","status":200,"e2e_s":1.0,'
        f'"policy":"random","blocks":"00000000000000aa{index:016x}","block_tokens":64.0,"key_tokens":140.0,'
        f'"prompt_tokens":140,"completion_tokens":9,"worker":"w1"}}'
        for index in range(20)
    ]
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join([head, *lines]) + "\n")
    packed = tmp_path / "logs" / "decisions-1.jsonl.zst"
    packed.parent.mkdir()
    packed.write_bytes(zstandard.compress(log.read_bytes()))

    plain = run(log, "--policy", "round_robin", "--workers", 2, "--json")
    folder = run(packed.parent, "--policy", "round_robin", "--workers", 2, "--json")

    (row,) = msgspec.json.decode(plain.stdout)["results"]
    assert row["requests"] == 20
    assert row["token_hit_ratio"] == pytest.approx(18 * 64 / (20 * 140))
    assert msgspec.json.decode(folder.stdout)["results"] == [row]


def test_timing_can_come_from_a_file(trace: Path, tmp_path: Path) -> None:
    slower = tmp_path / "slower.toml"
    write_cost_model(replace(H200_QWEN3_8B, decode_step_base_s=1.0), slower)

    quick, slow = (
        msgspec.json.decode(run(trace, "--policy", "round_robin", "--json", *extra).stdout)["results"][0]
        for extra in ((), ("--cost-model", slower))
    )

    assert quick["e2e_p50_s"] < 1.0
    assert slow["e2e_p50_s"] > 6.0
