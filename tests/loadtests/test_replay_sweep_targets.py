"""Targets of a plan: which cells they are about, against whom, and what counts as met."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from loadtests.replay_report import Figures
from loadtests.replay_sweep import Cell, Line, Plan, SweepError, Target, read_plan
from loadtests.replay_sweep_targets import judged, said

PEERS = ("smg_cache_aware", "dynamo_cost")
GRID = Path(__file__).parents[2] / "benchmarks" / "replay" / "grid.toml"


def line(
    policy: str, mean_s: float, *, trace: str = "conversation", busy: float = 0.75, hit: float = 0.2, seed: int = 0
) -> Line:
    cell = Cell(
        trace=f"a/{trace}.jsonl.gz", limit=None, turns="overlap", workers=8, capacity_tokens=700_000,
        load=f"busy {busy:g}", rate=1.0, seed=seed, policy=policy, jitter_s=0.0, load_poll_s=1.0, objective_s=1.0,
        exact=False, cost_model="", timing="t",
    )  # fmt: skip
    figures = Figures(
        policy=policy, token_hit_ratio=hit, ttft_mean_s=mean_s, ttft_p50_s=0.1, ttft_p90_s=1.0, ttft_p99_s=2.0,
        e2e_mean_s=3.0, e2e_p50_s=3.0, e2e_p90_s=3.0, e2e_p99_s=3.0, goodput_ratio=0.9, imbalance=1.1,
        imbalance_requests=1.0, busy_ratio=0.5, requests=10, errors=0,
    )  # fmt: skip
    return Line(cell=cell, figures=figures, ideal_hit_ratio=0.3, ideal_busy_ratio=busy)


def met(target: Target, *lines: Line) -> list[bool]:
    return [verdict.met for verdict in judged(target, "ours", lines, PEERS)]


def test_a_bound_of_one_is_kept_within_noise_and_any_other_is_exact() -> None:
    lines = (line("ours", 1.04), line("smg_cache_aware", 1.0))

    assert met(Target(name="t", figure="ttft_mean_s", against="smg_cache_aware"), *lines) == [True]
    assert met(Target(name="t", figure="ttft_mean_s", against="smg_cache_aware", at_most=1.039), *lines) == [False]


def test_the_best_peer_is_the_one_with_the_lowest_mean() -> None:
    target = Target(name="t", figure="ttft_mean_s", against="best_peer", at_most=0.8)

    assert met(target, line("ours", 1.0), line("smg_cache_aware", 9.0), line("dynamo_cost", 1.2)) == [False]
    assert met(target, line("ours", 1.0), line("smg_cache_aware", 9.0), line("dynamo_cost", 1.3)) == [True]


def test_what_is_missing_to_the_pooled_cache_is_bounded() -> None:
    target = Target(name="t", figure="token_hit_ratio", against="pooled", at_most=0.02)

    assert met(target, line("ours", 1.0, hit=0.285)) == [True]
    assert met(target, line("ours", 1.0, hit=0.275)) == [False]


def test_a_target_is_about_its_traces_and_loads_only() -> None:
    target = Target(name="t", figure="ttft_mean_s", against="round_robin", traces=("agent",), busy_from=0.75)
    lines = [
        line(policy, 1.0, trace=trace, busy=busy)
        for policy in ("ours", "round_robin")
        for trace in ("agentic", "conversation")
        for busy in (0.5, 0.75, 1.2)
    ]

    assert [verdict.cell for verdict in judged(target, "ours", lines, PEERS)] == [
        "agentic, 8 x 700k, busy 0.75", "agentic, 8 x 700k, busy 1.2",
    ]  # fmt: skip


def test_missed_cells_are_named_worst_first() -> None:
    target = Target(name="as fast", figure="ttft_mean_s", against="round_robin")
    plan = Plan(traces=("a",), policies=("ours", "other"), judged=("ours",), targets=(target,))
    lines = [
        line(policy, mean_s, trace=trace)
        for policy, trace, mean_s in (
            ("ours", "x", 2.0), ("ours", "y", 3.0), ("ours", "z", 1.0), ("other", "x", 9.0),
            ("round_robin", "x", 1.0), ("round_robin", "y", 1.0), ("round_robin", "z", 1.0),
        )
    ]  # fmt: skip

    assert list(said(plan, lines)) == [
        "missed  ours: as fast: 1 of 3 cells",
        "          3.000 in y, 8 x 700k, busy 0.75",
        "          2.000 in x, 8 x 700k, busy 0.75",
    ]


def test_a_target_on_a_figure_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('traces = ["t"]\nbusy = [0.5]\n[[targets]]\nname = "n"\nfigure = "ttft"\nagainst = "pooled"\n')

    with pytest.raises(SweepError, match="figure"):
        read_plan(path)


def test_the_grid_is_a_plan_whose_targets_name_policies_it_runs() -> None:
    plan = read_plan(GRID)
    runs = {*plan.all_policies(), "best_peer", "pooled"}

    assert {target.against for target in plan.targets} <= runs
    assert set(plan.judged) <= set(plan.policies)
    assert msgspec.structs.asdict(plan)["limit"] == 2500
