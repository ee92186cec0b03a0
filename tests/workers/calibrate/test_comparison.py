"""Two servers side by side: figures, ratios, table and JSON."""

from __future__ import annotations

import io
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from rich.console import Console

from workers.calibrate.comparison import compare_runs, comparison_json, comparison_table, figures, quantile
from workers.calibrate.experiment import Call, Experiment, Run, Timing
from workers.calibrate.measurement_file import Measurements
from workers.calibrate.prompts import Segment
from workers.calibrate.server_facts import ServerFacts

CALL = Call(prompt=(Segment(1, 10),), output_tokens=3)


def run_of(*timings: Timing, name: str = "1 at a time") -> Run:
    experiment = Experiment(name=name, group="load", calls=(CALL,) * len(timings))
    return Run(experiment=experiment, timings=timings)


def timing(ttft_s: float, gap_s: float, cached: int = 4) -> Timing:
    return Timing(
        sent_s=1.0,
        token_s=(1.0 + ttft_s, 1.0 + ttft_s + gap_s, 1.0 + ttft_s + 3 * gap_s),
        token_counts=(1, 2, 4),
        prompt_tokens=10,
        cached_tokens=cached,
    )


@given(values=st.lists(st.floats(0, 100), min_size=1, max_size=30), share=st.sampled_from([0.0, 0.5, 0.9, 1.0]))
def test_a_quantile_is_numpys(values: list[float], share: float) -> None:
    assert quantile(values, share) == pytest.approx(float(np.quantile(values, share)))


def test_figures_are_those_of_answered_calls_and_an_event_of_two_tokens_counts_twice() -> None:
    found = figures(run_of(timing(0.1, 0.01), timing(0.3, 0.03), Timing(sent_s=0.0, error="HTTP 500")))
    assert (found.calls, found.errors) == (3, 1)
    assert found.ttft_p50_s == pytest.approx(0.2)
    assert found.itl_p50_s == pytest.approx(0.02)  # three gaps of each
    assert found.e2e_p90_s == pytest.approx(0.13 + 0.9 * 0.26)
    assert (found.cached_tokens, found.prompt_tokens) == (8, 20)


def test_a_level_of_failures_has_figures_of_zero_and_no_ratio() -> None:
    dead = run_of(Timing(sent_s=0.0, error="x"))
    (row,) = compare_runs([dead], [run_of(timing(0.1, 0.01))])
    assert row.real.ttft_p50_s == 0.0
    assert row.ratio("ttft_p50_s") is None


def test_levels_are_paired_by_name(facts: ServerFacts) -> None:
    real = [run_of(timing(0.1, 0.01), name="a"), run_of(timing(0.2, 0.01), name="b")]
    ours = [run_of(timing(0.22, 0.02, cached=5), name="b"), run_of(timing(0.1, 0.01), name="c")]
    rows = compare_runs(real, ours)
    assert [row.name for row in rows] == ["b"]
    assert rows[0].ratio("ttft_p50_s") == pytest.approx(1.1)
    theirs = Measurements(facts=facts, date="2026-01-02", runs=tuple(real))
    mine = replace(theirs, runs=tuple(ours))
    data = comparison_json(theirs, mine, rows)
    assert data["levels"][0]["ratio"]["itl_p50_s"] == pytest.approx(2.0)
    assert data["levels"][0]["simulated"]["cached_tokens"] == 5
    console = Console(file=io.StringIO(), width=160)
    console.print(comparison_table(theirs, mine, rows))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "200.0 / 220.0" in text
    assert "1.10" in text
