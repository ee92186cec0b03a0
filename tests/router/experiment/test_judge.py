"""What counts, what decides, and what ends an arm."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from outcomes import outcome
from router.experiment.arm_tally import ArmTally
from router.experiment.compare import Design
from router.experiment.config import ExperimentConfig
from router.experiment.judge import Judgement, Verdict, judge
from router.experiment.tally import GROUPS, TimeGrid

CONFIG = ExperimentConfig(planned_requests=1000)
DESIGN = Design(alpha=0.05, planned=1000, alternates=False)


def tallies() -> tuple[ArmTally, ArmTally]:
    grid = TimeGrid(0.0, 10.0)
    return ArmTally(grid, goodput_ttft_s=1.0, goodput_itl_s=0.1), ArmTally(grid, goodput_ttft_s=1.0, goodput_itl_s=0.1)


def run(factor: float, requests: int = 1500, **fields: Any) -> Judgement:
    """`requests` in each arm; the treatment's TTFT is `factor` times the control's."""
    rng = Random(5)
    arms = tallies()
    for number in range(requests):
        for arm, scale in zip(arms, (1.0, factor), strict=True):
            ttft_s = scale * rng.lognormvariate(-1.5, 0.5)
            arm.add(outcome(at_s=number * 0.5, ttft_s=ttft_s, e2e_s=ttft_s + 1, **fields), rng.randrange(GROUPS))
    return judge(*arms, CONFIG, DESIGN)


def test_an_arm_that_answers_sooner_is_better_and_every_interval_says_by_how_much() -> None:
    found = run(0.8)

    assert found.verdict is Verdict.BETTER
    by_name = {each.measure: each for each in found.measured}
    for name in ("ttft_mean", "ttft_p50", "ttft_p90"):
        difference = by_name[name].difference
        assert difference is not None
        assert difference.relative_low is not None
        assert difference.relative_high is not None
        assert difference.relative_low < -0.2 < difference.relative_high < 0
    assert by_name["goodput"].higher_is_better
    assert not by_name["ttft_mean"].higher_is_better


def test_an_arm_that_answers_later_is_worse_and_one_that_answers_much_later_does_harm() -> None:
    assert run(1.3).verdict is Verdict.WORSE
    harmed = run(3.0)
    assert harmed.verdict is Verdict.HARM
    assert "Mean TTFT is longer" in harmed.why


def test_equal_arms_end_without_a_winner_once_the_interval_is_narrow_enough() -> None:
    assert run(1.0, requests=1500).verdict is Verdict.RUNNING
    config = ExperimentConfig(planned_requests=1000, no_difference=0.5)
    arms = tallies()
    rng = Random(6)
    for number in range(1500):
        for arm in arms:
            arm.add(outcome(at_s=number * 0.5, ttft_s=rng.lognormvariate(-1.5, 0.5)), rng.randrange(GROUPS))

    assert judge(*arms, config, DESIGN).verdict is Verdict.NO_DIFFERENCE


def test_there_is_no_interval_from_a_few_sessions_or_a_minute() -> None:
    few, short = tallies(), tallies()
    rng = Random(7)
    for number in range(1500):
        for place in (0, 1):
            value = outcome(at_s=number * 0.5, ttft_s=rng.lognormvariate(-1.5 + 2 * place, 0.5))
            few[place].add(value, number % 5)
            short[place].add(outcome(at_s=number * 0.04, ttft_s=value.ttft_s), rng.randrange(GROUPS))

    for arms in (few, short):
        judged = judge(*arms, CONFIG, DESIGN)
        assert judged.verdict is Verdict.RUNNING
        assert "Too few" in judged.why


def test_an_arm_that_fails_is_ended_after_a_handful_of_requests() -> None:
    control, treatment = tallies()
    for number in range(5):
        control.add(outcome(at_s=float(number)), number)
        treatment.add(outcome(at_s=float(number), status=502, error="worker_hung_up", ttft_s=None), number)

    judged = judge(control, treatment, CONFIG, DESIGN)

    assert judged.verdict is Verdict.HARM
    assert "5 of 5 requests failed" in judged.why


def test_a_single_incident_ends_nothing() -> None:
    control, treatment = tallies()
    for number in range(4):
        treatment.add(outcome(at_s=float(number), status=502, error="worker_hung_up", ttft_s=None), number)
    control.add(outcome(at_s=0.0), 0)

    assert judge(control, treatment, CONFIG, DESIGN).verdict is Verdict.RUNNING


def test_failures_that_both_arms_share_end_nothing() -> None:
    arms = tallies()
    for number in range(200):
        for arm in arms:
            failed = number % 5 == 0
            arm.add(
                outcome(at_s=float(number), status=502 if failed else 200, error="worker_hung_up" if failed else None),
                number % GROUPS,
            )

    assert judge(*arms, CONFIG, DESIGN).verdict is Verdict.RUNNING


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({"status": 400, "error": "invalid_body"}, (0, 0, 0, 0)),
        ({"status": 422}, (0, 0, 0, 0)),
        ({"spilled": True}, (0, 0, 1, 0)),
        ({"status": 499, "error": "client_gone"}, (1, 0, 0, 1)),
        ({"status": 504, "error": "worker_timeout"}, (1, 1, 0, 0)),
        ({}, (1, 0, 0, 0)),
    ],
)
def test_what_counts_and_as_what(fields: dict[str, Any], counts: tuple[int, int, int, int]) -> None:
    arm, _ = tallies()
    arm.add(outcome(**fields), 0)

    assert (arm.requests, arm.failed, arm.spilled, arm.clients_gone) == counts


def test_cached_tokens_are_a_share_of_tokens_not_a_mean_of_shares() -> None:
    arm, _ = tallies()
    arm.add(outcome(prompt_tokens=1000, cached_tokens=0), 0)
    arm.add(outcome(prompt_tokens=10, cached_tokens=10), 1)

    assert arm.cached_ratio.ratio == pytest.approx(10 / 1010)


def test_good_answers_are_soon_and_steady() -> None:
    arm, _ = tallies()
    for ttft_s, itl_s in ((0.5, 0.05), (1.5, 0.05), (0.5, 0.2), (0.5, None)):
        arm.add(outcome(ttft_s=ttft_s, itl_mean_s=itl_s), 0)

    assert arm.goodput.ratio == 0.5
