"""How true the simulated worker is: its engine, sent what a real SGLang on an H200 was sent, against what that did."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.calibrate.comparison import Row, compare_runs
from workers.calibrate.measurement_file import read_measurements
from workers.calibrate.simulation import virtual
from workers.simulated.cost_file import read_cost_model
from workers.simulated.cost_model import H200_QWEN3_8B

ROOT = Path(__file__).resolve().parents[3]
REAL = ("compare.json.gz", "compare-again.json.gz", "compare-seed1.json.gz")
"""One workload in two sessions, and another, which decided no parameter."""
SATURATED = {"6 requests/s", "32 at a time", "64 at a time", "128 at a time"}
"""Levels at which requests wait for each other most of the time: a small difference decides which come first."""


@pytest.fixture(scope="module", params=REAL)
def rows(request: pytest.FixtureRequest) -> list[Row]:
    real = read_measurements(ROOT / "benchmarks" / "h200" / request.param)
    return compare_runs(real.runs, virtual(real, H200_QWEN3_8B).runs)


def test_every_call_of_every_level_is_answered_with_all_its_tokens(rows: list[Row]) -> None:
    assert len(rows) == 10
    for row in rows:
        assert (row.real.errors, row.simulated.errors) == (0, 0)
        assert row.real.prompt_tokens == row.simulated.prompt_tokens


@pytest.mark.parametrize("measure", ["ttft_p50_s", "itl_p50_s", "e2e_p90_s"])
def test_times_are_within_15_percent_and_16_in_saturation(rows: list[Row], measure: str) -> None:
    ratios = {row.name: row.ratio(measure) or 0.0 for row in rows}
    aims = {name: 0.16 if name in SATURATED else 0.15 for name in ratios}
    assert {name: ratio for name, ratio in ratios.items() if abs(ratio - 1) > aims[name]} == {}


def test_cached_tokens_are_within_2_percent_at_every_level_and_within_1_percent_at_most(rows: list[Row]) -> None:
    ratios = [row.ratio("cached_tokens") or 0.0 for row in rows]
    assert ratios == pytest.approx([1.0] * len(rows), abs=0.02)
    assert sum(abs(ratio - 1) <= 0.01 for ratio in ratios) >= 7


def test_the_cost_file_of_the_h200_is_the_default() -> None:
    path = ROOT / "workers" / "simulated" / "cost_models" / "h200-qwen3-8b.toml"
    assert read_cost_model(path) == H200_QWEN3_8B
