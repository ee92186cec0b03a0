"""Ratios, what is noise, and the verdict."""

from __future__ import annotations

import pytest
from rich.console import Console

from loadtests.replay_report import Figures
from loadtests.replay_sweep import Cell, Line
from loadtests.replay_sweep_table import best_peer, by_cell, ratio, sweep_table, ttft_mean, verdict


def line(policy: str, mean_s: float | None, *, seed: int = 0, p90_s: float = 1.0, load: str = "busy 0.5") -> Line:
    cell = Cell(
        trace="a/conv.jsonl.gz", limit=None, turns="overlap", workers=8, capacity_tokens=700_000, load=load, rate=1.0,
        seed=seed, policy=policy, jitter_s=0.0, load_poll_s=1.0, objective_s=1.0, exact=False,
        cost_model="", timing="t",
    )  # fmt: skip
    figures = Figures(
        policy=policy, token_hit_ratio=0.2, ttft_mean_s=mean_s, ttft_p50_s=0.1, ttft_p90_s=p90_s, ttft_p99_s=2.0,
        e2e_mean_s=3.0, e2e_p50_s=3.0, e2e_p90_s=3.0, e2e_p99_s=3.0, goodput_ratio=0.9, imbalance=1.1,
        imbalance_requests=1.0, busy_ratio=0.5, requests=10, errors=0,
    )  # fmt: skip
    return Line(cell=cell, figures=figures, ideal_hit_ratio=0.3, ideal_busy_ratio=0.5)


@pytest.mark.parametrize(("mine", "mark"), [(0.9, "<"), (0.96, "="), (1.04, "="), (1.1, ">")])
def test_five_percent_are_noise(mine: float, mark: str) -> None:
    found = ratio([line("a", mine)], [line("b", 1.0)], ttft_mean)

    assert found is not None
    assert (found.value, found.mark) == (pytest.approx(mine), mark)


def test_seeds_that_disagree_are_noise_and_seeds_that_agree_are_not() -> None:
    theirs = [line("b", 1.0, seed=seed) for seed in range(3)]

    scattered = ratio([line("a", value, seed=seed) for seed, value in enumerate((0.6, 2.0, 1.2))], theirs, ttft_mean)
    steady = ratio([line("a", value, seed=seed) for seed, value in enumerate((1.2, 1.22, 1.25))], theirs, ttft_mean)

    assert scattered is not None
    assert steady is not None
    assert (scattered.mark, steady.mark) == ("=", ">")


def test_only_seeds_that_both_have_are_compared() -> None:
    mine = [line("a", 1.0, seed=0), line("a", 100.0, seed=1)]

    found = ratio(mine, [line("b", 2.0, seed=0)], ttft_mean)

    assert found is not None
    assert found.value == 0.5
    assert ratio(mine, [line("b", None, seed=0)], ttft_mean) is None


def test_a_cell_that_was_run_again_counts_once_with_its_last_line() -> None:
    (rows,) = by_cell([line("a", 1.0), line("a", 5.0)]).values()

    assert [one.figures.ttft_mean_s for one in rows["a"]] == [5.0]


def test_the_best_peer_is_the_fastest_that_ran() -> None:
    (rows,) = by_cell([line("p", 2.0), line("q", 1.0), line("mine", 0.1)]).values()

    assert best_peer(rows, ["p", "q", "absent"], ttft_mean) == "q"
    assert best_peer(rows, ["absent"], ttft_mean) is None


def test_the_table_compares_and_the_verdict_counts() -> None:
    lines = [line("round_robin", 4.0), line("p", 2.0), line("q", 1.0, p90_s=0.5), line("mine", 1.5)]
    console = Console(width=260, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(sweep_table(lines, "round_robin", ["p", "q"]))
    table = captured.get()
    mine = next(row for row in table.splitlines() if "│ mine" in row)

    assert "conv, 8 x 700k, busy 0.5" in table
    assert "0.38 <" in mine
    assert "1.50 >" in mine
    assert "2.00 >" in mine
    assert mine.split("│")[-2].strip() == "q"
    (said,) = verdict(lines, "round_robin", ["p", "q"])
    assert said == (
        "mine, 1 cells: worse than round_robin in 0 of 2 comparisons, 0.38 times its mean TTFT on average; "
        "worse than the best peer in 2 of 2 comparisons, 1.50 times its mean TTFT on average"
    )


def test_a_policy_that_missed_a_cell_is_judged_on_the_others() -> None:
    lines = [line("round_robin", 1.0), line("mine", 2.0), line("round_robin", 1.0, load="busy 0.9")]

    (said,) = verdict(lines, "round_robin", [])
    assert said == (
        "mine, 1 cells: worse than round_robin in 1 of 2 comparisons, 2.00 times its mean TTFT on average; "
        "worse than the best peer in 0 of 0 comparisons"
    )
