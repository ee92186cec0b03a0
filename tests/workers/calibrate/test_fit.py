"""Calibration finds the parameters of a server whose parameters are known: the check of the whole procedure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from workers.calibrate.fit import fit
from workers.calibrate.measurement_file import Measurements
from workers.calibrate.measuring import run_all
from workers.calibrate.schedule import QUICK, Sizes, schedule
from workers.calibrate.server_facts import ServerFacts
from workers.calibrate.virtual_runner import VirtualRunner
from workers.simulated.cost_model import PARAMETERS, CostModel
from workers.simulated.errors import BadOption

SIZES = Sizes(
    prefill=(128, 512, 2048, 8192, 20_000),
    cached=((1024, 64), (8192, 2048), (16_000, 64), (30_000, 2048)),
    repeats=2,
    rushes=((48, 16),),
    blocker=2048,
    bursts=((8, 128),),
    decode=((1, 128), (32, 128), (1, 16_000), (16, 8000)),
    shared=((48, 6000),),
    decode_tokens=12,
    mixed=((8, 512, (128, 512)), (24, 512, (200, 800))),
    mixed_tokens=60,
    text=(500, 4000),
)
"""Every parameter decides a figure of these, and the test stays short."""


async def measured(facts: ServerFacts, model: CostModel, sizes: Sizes) -> Measurements:
    runner = VirtualRunner(model, facts.engine_config())
    runs = await run_all(runner, schedule(sizes, facts), lambda experiment: None)
    return Measurements(facts=facts, date="2026-01-02", runs=tuple(runs))


async def test_known_parameters_are_recovered(facts: ServerFacts, other_model: CostModel) -> None:
    found = fit(await measured(facts, other_model, SIZES))
    assert found.largest_error < 0.02
    for name in PARAMETERS:
        if name not in {"plan_s", "front_end_latency_s", "front_end_request_s"}:
            assert getattr(found.cost_model, name) == pytest.approx(getattr(other_model, name), rel=0.02), name
    front = found.cost_model.front_end_latency_s + found.cost_model.front_end_request_s
    assert front == pytest.approx(0.002, rel=0.02)
    assert found.cost_model.front_end_request_s == pytest.approx(0.0002, abs=0.0001)  # a grid of a twentieth of both
    assert found.cost_model.plan_s == pytest.approx(0.0021, abs=0.0011)


async def test_the_result_says_where_it_comes_from_and_how_well_it_fits(
    facts: ServerFacts, other_model: CostModel
) -> None:
    found = fit(await measured(facts, other_model, QUICK))
    model = found.cost_model
    assert (model.model, model.hardware, model.sglang_version) == ("m", "1 x H200", "0.5.21")
    assert f"2026-01-02: {len(found.residuals)} figures" in model.source
    assert max(abs(residual.error) for residual in found.residuals) == found.largest_error


async def test_a_server_that_does_not_report_its_forward_times_is_fitted_by_what_its_clients_see(
    facts: ServerFacts, other_model: CostModel
) -> None:
    whole = await measured(facts, other_model, QUICK)
    bare = replace(
        whole,
        runs=tuple(
            replace(run, timings=tuple(replace(timing, meta={}) for timing in run.timings)) for run in whole.runs
        ),
    )
    found = fit(bare)
    assert not any("forward" in residual.name for residual in found.residuals)
    assert found.median_error < 0.02


async def test_too_little_to_fit_is_refused(facts: ServerFacts, other_model: CostModel) -> None:
    whole = await measured(facts, other_model, QUICK)
    with pytest.raises(BadOption, match="only 2 figures"):
        fit(replace(whole, runs=whole.runs[:2]))
