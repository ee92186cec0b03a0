"""The commands as users call them: files, output and clear errors. Servers are real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from workers.calibrate.commands import calibrate, compare
from workers.calibrate.measurement_file import read_measurements
from workers.calibrate.server_facts import ServerFacts
from workers.calibrate.simulation import server
from workers.simulated.cost_file import read_cost_model, write_cost_model
from workers.simulated.cost_model import CostModel

pytestmark = pytest.mark.slow


@pytest.fixture
def url(facts: ServerFacts, other_model: CostModel) -> Iterator[str]:
    with server(facts, other_model) as running:
        yield running


def invoke(command: object, *flags: str | Path) -> Result:
    return CliRunner().invoke(command, [str(flag) for flag in flags])  # type: ignore[arg-type]


def test_calibrating_a_server_writes_a_cost_file_that_says_where_it_comes_from(url: str, tmp_path: Path) -> None:
    """Whether its figures are right is in test_fit: here they are those of a busy machine."""
    runs, out = tmp_path / "runs.json.gz", tmp_path / "cost.toml"
    done = invoke(calibrate, "--url", url, "--quick", "--save-measurements", runs, "--out", out, "--hardware", "a box")
    assert done.exit_code == 0, done.output
    found = read_cost_model(out)
    assert found.hardware == "a box"
    assert "figures, relative error of the median" in found.source
    assert "decode_step_base_s" in done.stderr
    again = invoke(calibrate, "--measurements", runs)
    assert again.exit_code == 0, again.output
    assert f'hardware = "{found.hardware}"' in again.stdout


def test_a_comparison_with_the_same_model_finds_the_same_cached_tokens(
    url: str, tmp_path: Path, other_model: CostModel
) -> None:
    real, cost = tmp_path / "real.json", tmp_path / "cost.toml"
    write_cost_model(other_model, cost)
    only = invoke(compare, "--real", url, "--quick", "--only-real", "--save-real", real)
    assert only.exit_code == 0, only.output
    done = invoke(compare, "--real", real, "--virtual", "--cost-file", cost, "--json")
    assert done.exit_code == 0, done.output
    levels = {level["load"]: level for level in json.loads(done.stdout)["levels"]}
    assert set(levels) == {"2 requests/s", "1 at a time", "4 at a time"}
    assert levels["1 at a time"]["ratio"]["cached_tokens"] == 1.0
    assert levels["1 at a time"]["real"]["errors"] == 0
    table = invoke(compare, "--real", real, "--simulated", real)
    assert table.exit_code == 0, table.output
    assert "4 at a time" in table.stdout
    assert "1.00" in table.stdout


@pytest.mark.parametrize(
    ("command", "flags", "words"),
    [
        (calibrate, [], "either --url or --measurements"),
        (calibrate, ["--url", "http://127.0.0.1:1", "--measurements", "x"], "either --url or --measurements"),
        (calibrate, ["--url", "http://127.0.0.1:1", "--no-fit"], "--no-fit needs --save-measurements"),
        (calibrate, ["--url", "http://127.0.0.1:1"], "http://127.0.0.1:1/server_info"),
        (calibrate, ["--measurements", "missing.json"], "missing.json: No such file"),
        (calibrate, ["--ur", "x"], "No such option"),
        (compare, [], "Missing option '--real'"),
        (compare, ["--real", "missing.json"], "missing.json: No such file"),
        (compare, ["--real", "x", "--simulated", "y", "--virtual"], "--virtual and --cost-file"),
        (compare, ["--real", "x", "--only-real"], "--only-real needs --save-real"),
        (compare, ["--real", "http://127.0.0.1:1"], "http://127.0.0.1:1/server_info"),
    ],
)
def test_what_cannot_work_is_one_clear_error(command: object, flags: list[str], words: str) -> None:
    done = invoke(command, *flags)
    assert done.exit_code != 0
    assert words in done.output
    assert "Traceback" not in done.output


def test_a_malformed_cost_file_is_named(tmp_path: Path) -> None:
    cost, real = tmp_path / "cost.toml", tmp_path / "real.json"
    cost.write_text("prefill_step_s = 'fast'")
    real.write_text("{}")
    done = invoke(compare, "--real", real, "--virtual", "--cost-file", cost)
    assert done.exit_code == 1
    assert "real.json" in done.output


def test_what_was_measured_is_saved_when_the_server_fails_on_the_way(tmp_path: Path) -> None:
    runs, faults = tmp_path / "runs.json", tmp_path / "faults.toml"
    faults.write_text('[[fault]]\nkind = "error"\npath = "/flush_cache"\nat_s = 1.5\n')
    command = [sys.executable, "-m", "workers", "simulate", "--port", "0", "--faults", str(faults)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        url = line.split(" on ")[1].split()[0]
        done = invoke(calibrate, "--url", url, "--quick", "--save-measurements", runs)
        assert done.exit_code == 1
        assert "/flush_cache: 500" in done.output
        assert read_measurements(runs).facts.kv_capacity_tokens == 699_103
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
