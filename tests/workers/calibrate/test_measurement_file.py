"""What was measured is read back as it was; what is no such file is one clear error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workers.calibrate.experiment import run_as_json, run_from_json
from workers.calibrate.measurement_file import Measurements, read_measurements, write_measurements
from workers.calibrate.schedule import QUICK, schedule
from workers.calibrate.server_facts import ServerFacts
from workers.calibrate.virtual_runner import VirtualRunner
from workers.simulated.cost_model import H200_QWEN3_8B
from workers.simulated.errors import BadOption


@pytest.fixture
async def measured(facts: ServerFacts) -> Measurements:
    runner = VirtualRunner(H200_QWEN3_8B, facts.engine_config())
    runs = [await runner.run(experiment) for experiment in schedule(QUICK, facts)[:3]]
    return Measurements(facts=facts, date="2026-01-02", runs=tuple(runs))


@pytest.mark.parametrize("name", ["runs.json", "runs.json.gz"])
def test_a_file_is_read_back(tmp_path: Path, measured: Measurements, name: str) -> None:
    write_measurements(measured, tmp_path / name)
    again = read_measurements(tmp_path / name)
    assert (again.facts, again.date) == (measured.facts, measured.date)
    for one, other in zip(measured.runs, again.runs, strict=True):
        assert one.experiment == other.experiment
        assert [timing.ttft_s for timing in one.timings] == pytest.approx(
            [timing.ttft_s for timing in other.timings], abs=2e-5
        )
        assert run_as_json(run_from_json(run_as_json(other))) == run_as_json(other)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "trieway runs 1"}', '{"format": "other"}', "\x00"])
def test_anything_else_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "runs.json"
    path.write_text(content)
    with pytest.raises(BadOption, match=r"runs\.json"):
        read_measurements(path)
    with pytest.raises(BadOption, match=r"none\.json"):
        read_measurements(tmp_path / "none.json")


def test_a_run_without_a_field_is_refused(tmp_path: Path, measured: Measurements) -> None:
    path = tmp_path / "runs.json"
    write_measurements(measured, path)
    data = json.loads(path.read_text())
    del data["runs"][0]["calls"][0]["sent_s"]
    path.write_text(json.dumps(data))
    with pytest.raises(BadOption, match="sent_s"):
        read_measurements(path)
