"""What a reader is told beside a goodput."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtests.goodput import Goodput, Trial
from loadtests.scenario_table import SHORT_S, goodput_remark

TRIAL = Trial(rate=2.0, seed=0, requests_per_s=20.0, arrivals_s=60.0, share=1.0, met=True)
FOUND = Goodput(arm="a", best=TRIAL, failed_rate=2.1, confirmed=True, stopped="", trials=(TRIAL,))


@pytest.mark.parametrize(
    ("found", "remark"),
    [
        (FOUND, "confirmed"),
        (replace(FOUND, failed_rate=None), "no rate failed: a lower bound"),
        (replace(FOUND, stopped="after 9 trials"), "stopped after 9 trials: a lower bound"),
        (replace(FOUND, best=None), "no rate met the objective"),
        (replace(FOUND, best=None, stopped="interrupted"), "stopped interrupted"),
    ],
)
def test_a_goodput_says_how_far_it_may_be_believed(found: Goodput, remark: str) -> None:
    assert goodput_remark(found) == remark


@pytest.mark.parametrize("found", [FOUND, replace(FOUND, failed_rate=None), replace(FOUND, stopped="interrupted")])
def test_a_rate_at_which_all_requests_came_at_once_is_called_too_high_whatever_else_is_true(found: Goodput) -> None:
    short = replace(found, best=replace(TRIAL, arrivals_s=SHORT_S / 10))

    assert goodput_remark(short).startswith("too high: all arrived within 1 s")
