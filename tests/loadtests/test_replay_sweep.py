"""Sweeps: plans are checked before anything runs, cells run once, and an interrupted file goes on."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from loadtests.replay import replay
from loadtests.replay_load import load_traffic
from loadtests.replay_report import figures
from loadtests.replay_sweep import Plan, SweepError, cells, read_lines, read_plan
from loadtests.replay_sweep_command import replay_sweep

LINE = '{{"timestamp": {at}, "input_length": 1500, "output_length": 8, "hash_ids": [0, 1, {last}]}}\n'


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    trace = tmp_path / "small.jsonl"
    trace.write_text("".join(LINE.format(at=index * 50, last=index + 2) for index in range(40)))
    path = tmp_path / "plan.toml"
    path.write_text(
        f'traces = ["{trace}"]\nlimit = 30\nworkers = [2]\ncapacities = [20000]\nbusy = [0.5]\nseeds = [1]\n'
        'policies = ["prefix_match"]\npeers = ["smg_cache_aware"]\n'
    )
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(replay_sweep, [str(one) for one in arguments])


def test_a_sweep_is_run_once_and_goes_on_where_it_stopped(plan: Path) -> None:
    first = run(plan, "--jobs", 1)
    results = plan.with_suffix(".jsonl")
    whole = results.read_bytes()
    results.write_bytes(whole[: whole.rfind(b'"cell"')])  # as if it had been cut off within the last line

    again = run(plan, "--jobs", 1)
    third = run(plan, "--jobs", 1, "--json")

    assert first.exit_code == again.exit_code == third.exit_code == 0
    assert "3 cells, 0 of them in" in first.stderr
    assert "3 cells, 2 of them in" in again.stderr
    assert "3 cells, 3 of them in" in third.stderr
    assert sorted(results.read_bytes().splitlines()) == sorted(whole.splitlines())
    assert [line["cell"]["policy"] for line in msgspec.json.decode(third.stdout)] == [
        "round_robin", "smg_cache_aware", "prefix_match",
    ]  # fmt: skip
    assert "prefix_match, 1 cells: worse than round_robin in" in first.stdout


def test_traces_may_lie_in_another_folder(plan: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (tmp_path / "small.jsonl").rename(folder / "small.jsonl")

    assert run(plan, "--jobs", 1).exit_code != 0
    assert run(plan, "--jobs", 1, "--traces", folder).exit_code == 0


def test_a_line_is_what_replay_says_of_its_cell(plan: Path) -> None:
    run(plan, "--jobs", 2)
    line = read_lines(plan.with_suffix(".jsonl"))[-1]

    alone = replay(load_traffic(line.cell.trace, limit=30, wait=False), line.cell.policy, line.cell.config())

    assert line.figures == figures(alone)
    assert line.ideal_busy_ratio == pytest.approx(0.5)
    assert 0 < line.ideal_hit_ratio < 1


def test_a_policy_that_changed_is_run_again_on_request(plan: Path) -> None:
    run(plan, "--jobs", 1)

    result = run(plan, "--jobs", 1, "--again", "prefix_match")

    assert "3 cells, 2 of them in" in result.stderr
    assert len(read_lines(plan.with_suffix(".jsonl"))) == 4


def test_cells_are_the_product_of_everything(plan: Path) -> None:
    trace = read_plan(plan).traces
    wide = Plan(traces=trace, workers=(1, 2), capacities=(20_000, 40_000), busy=(0.5,), rates=(2.0,), seeds=(0, 1, 2))

    found = [cell for cell, _ in cells(wide)]

    assert len(found) == len(set(found)) == 2 * 2 * 2 * 3 * 5
    assert {cell.rate for cell in found if cell.load == "rate 2"} == {2.0}
    assert len({cell.rate for cell in found if cell.load == "busy 0.5"}) == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('traces = ["x"]', "give a load"),
        ("traces = []\nrates = [1]", "traces"),
        ('traces = ["x"]\nrates = [1]\nworker = [1]', "worker"),
        ('traces = ["x"]\nrates = [0]', "above 0"),
        ('traces = ["x"]\nrates = [1]\nworkers = [0]', "workers"),
        ('traces = ["x"]\nrates = [1]\nturns = "maybe"', "turns"),
        ('traces = ["x"]\nrates = [1]\npolicies = ["nope"]', "no policy 'nope'"),
        ('traces = ["x"]\nrates = "fast"', "rates"),
        ("traces = [", "plan.toml"),
    ],
)
def test_a_plan_that_cannot_run_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text)

    with pytest.raises(SweepError, match=said):
        read_plan(path)


def test_a_missing_trace_and_a_foreign_results_file_stop_before_anything_runs(plan: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.jsonl"
    foreign.write_text('{"a": 1}\n')
    missing = tmp_path / "missing.toml"
    missing.write_text('traces = ["nowhere.jsonl"]\nrates = [1]\n')

    refused, lost = run(plan, "--out", foreign), run(missing)

    assert refused.exit_code == lost.exit_code == 1
    assert "not the results of a sweep" in refused.stderr
    assert "nowhere.jsonl: no such file" in lost.stderr
    assert foreign.read_text() == '{"a": 1}\n'
