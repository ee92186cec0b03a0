"""Differences and their intervals, on results whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import numpy as np
import pytest

from loadtests.differences import Difference, Results, Verdict, differences, pooled
from loadtests.figures import figures
from loadtests.measures import ErrorKind, Objective, RequestResult, percentile

FIGURES = figures({"quick": Objective(ttft_s=0.5)})


def made(ttft_s: Callable[[int], float], sessions: int = 100, repetitions: int = 2, cached: int = 50) -> Results:
    """Two requests a session; TTFT by the session's number."""
    return {
        repetition: [
            RequestResult(session_id=f"s{index}", turn=turn, start_s=float(index), ttft_s=ttft_s(index), e2e_s=2.0,
                          prompt_tokens=100, cached_tokens=cached, completion_tokens=11)
            for index in range(sessions) for turn in range(2)
        ]
        for repetition in range(repetitions)
    }  # fmt: skip


def of(found: Sequence[Difference], figure: str) -> Difference:
    return next(one for one in found if one.figure == figure)


def test_an_arm_that_takes_half_the_time_is_better_by_half_exactly() -> None:
    """Every request takes half, so every resample says so too: paired noise cancels."""
    rng = Random(1)
    noise = [rng.expovariate(1.0) for _ in range(100)]
    found = differences({"a": made(lambda index: noise[index]), "b": made(lambda index: noise[index] / 2)}, FIGURES)
    mean = of(found, "ttft_mean")

    assert mean.change == pytest.approx(-0.5)
    assert (mean.low, mean.high) == (pytest.approx(-0.5), pytest.approx(-0.5))
    assert mean.verdict is Verdict.BETTER


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """No true difference, 40 times: single requests taken for independent (both turns of a session are alike) would
    cover it in about 83 % of the cases only.
    """
    mean = [one for one in FIGURES if one.key == "ttft_mean"]
    covered = 0
    for seed in range(40):
        rng = Random(seed)
        draws = [rng.expovariate(1.0) for _ in range(240)]
        one = made(draws.__getitem__, sessions=120, repetitions=1)
        other = made(draws[120:].__getitem__, sessions=120, repetitions=1)
        found = of(differences({"a": one, "b": other}, mean), "ttft_mean")
        covered += found.verdict is Verdict.UNCLEAR

    assert 35 <= covered <= 40


def test_more_cached_tokens_are_better_and_fewer_within_an_objective_worse() -> None:
    slow = made(lambda index: 1.0, cached=80)
    found = differences({"a": made(lambda index: 0.1 + index / 100, cached=50), "b": slow}, FIGURES)
    cached, met = of(found, "cached"), of(found, "met_quick")

    assert (cached.change, cached.verdict) == (pytest.approx(0.3), Verdict.BETTER)
    assert (met.baseline, met.value, met.verdict) == (pytest.approx(0.41), 0.0, Verdict.WORSE)


def test_percentiles_are_those_of_measures() -> None:
    rng = Random(3)
    draws = [rng.expovariate(1.0) for _ in range(37)]
    results = {0: [RequestResult(session_id=f"{index}", turn=0, start_s=float(index), ttft_s=draw, e2e_s=9.0)
                   for index, draw in enumerate(draws)]}  # fmt: skip
    values = pooled({"a": results}, FIGURES)["a"]

    for percent in (50, 90, 99):
        assert values[f"ttft_p{percent}"] == pytest.approx(percentile(sorted(draws), percent))
    assert values["ttft_mean"] == pytest.approx(np.mean(draws))
    assert values["cached"] is None
    assert values["tpot_mean"] is None


def test_failures_count_as_errors_and_as_missing_the_objective_and_in_no_latency() -> None:
    good = made(lambda index: 0.1, repetitions=1)
    bad = {0: [RequestResult(session_id=one.session_id, turn=one.turn, start_s=one.start_s, e2e_s=99.0,
                             error=ErrorKind.TIMEOUT) if index % 4 == 0 else one
               for index, one in enumerate(good[0])]}  # fmt: skip
    values = pooled({"b": bad}, FIGURES)["b"]

    assert (values["errors"], values["met_quick"], values["e2e_mean"]) == (0.25, 0.75, 2.0)


def test_few_sessions_give_a_change_without_an_interval() -> None:
    found = differences({"a": made(lambda i: 1.0, sessions=5, repetitions=1),
                         "b": made(lambda i: 2.0, sessions=5, repetitions=1)}, FIGURES)  # fmt: skip
    mean = of(found, "ttft_mean")

    assert (mean.change, mean.low, mean.high, mean.verdict) == (1.0, None, None, Verdict.UNCLEAR)


def test_only_repetitions_that_every_arm_has_are_compared() -> None:
    short = {0: made(lambda i: 1.0)[0]}
    long = {0: made(lambda i: 1.0)[0], 1: made(lambda i: 100.0)[0]}

    assert of(differences({"a": short, "b": long}, FIGURES), "ttft_mean").change == 0.0


def test_a_figure_that_nobody_measured_is_no_difference() -> None:
    nothing = {0: [RequestResult(session_id=f"{i}", turn=0, start_s=float(i), e2e_s=1.0) for i in range(10)]}
    ttft = of(differences({"a": nothing, "b": nothing}, FIGURES), "ttft_p90")

    assert (ttft.value, ttft.change, ttft.low) == (None, None, None)
