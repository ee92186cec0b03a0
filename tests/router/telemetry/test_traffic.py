"""The last ten minutes: bounded, in steps, in all and per worker."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from outcomes import decision, outcome
from router.telemetry.traffic import STEP_S, STEPS, Traffic, quantiles
from router.types import WorkerId


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_requests_count_in_the_step_in_which_they_end_and_old_steps_go() -> None:
    clock = Clock()
    traffic = Traffic(clock)
    for _ in range(3 * STEPS):
        traffic.observe(outcome())
        clock.now_s += STEP_S

    series = traffic.series()

    assert len(series) == STEPS
    assert len(traffic._steps) <= STEPS
    assert [ago_s for ago_s, _ in series] == [STEP_S * ago for ago in reversed(range(STEPS))]
    assert [step.requests for _, step in series] == [1] * (STEPS - 1) + [0]


def test_only_what_workers_or_the_router_did_wrong_is_a_failure() -> None:
    traffic = Traffic(Clock())
    for status, error in ((200, None), (400, "invalid_body"), (499, "client_gone"), (502, "stream_cut"), (503, None)):
        traffic.observe(outcome(status=status, error=error))

    assert traffic.series()[-1][1].failed == 2


def test_a_workers_last_minute_is_its_own() -> None:
    clock = Clock()
    traffic = Traffic(clock)
    traffic.observe(outcome(decision=decision("w1"), prompt_tokens=100, cached_tokens=50))
    clock.now_s += 30
    traffic.observe(outcome(decision=decision("w1"), prompt_tokens=100, cached_tokens=70))
    traffic.observe(outcome(decision=decision("w2")))

    minute = traffic.last_minute(WorkerId("w1"))
    assert (minute.requests, minute.prompt_tokens, minute.cached_tokens) == (2, 200, 120)
    clock.now_s += 40
    assert traffic.last_minute(WorkerId("w1")).requests == 1
    assert traffic.last_minute(WorkerId("nobody")).requests == 0


def test_quantiles_are_within_a_bin_of_the_truth() -> None:
    rng = Random(1)
    clock = Clock()
    traffic = Traffic(clock)
    values = sorted(rng.lognormvariate(-1, 1) for _ in range(2000))
    for value in values:
        traffic.observe(outcome(ttft_s=value))

    found = quantiles(traffic.series()[-1][1].ttft, (0.5, 0.9))

    assert found == [pytest.approx(values[1000], rel=0.06), pytest.approx(values[1800], rel=0.06)]
    assert quantiles(Counter(), (0.5,)) == [None]
