"""The last ten minutes: bounded, in steps, in all and per worker."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from outcomes import decision, outcome
from router.telemetry.backlog import Backlog
from router.telemetry.traffic import STEP_S, STEPS, Traffic, quantiles
from router.types import WorkerId


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Watched:
    """Traffic, and requests that end now."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.backlog = Backlog()
        self.traffic = Traffic(self.clock, self.backlog)

    def ended(self, **fields: Any) -> None:
        self.backlog.add(outcome(at_s=self.clock.now_s - 1.5, e2e_s=1.5, **fields))


def test_requests_count_in_the_step_in_which_they_end_and_old_steps_go() -> None:
    watched = Watched()
    clock, traffic = watched.clock, watched.traffic
    for _ in range(3 * STEPS):
        watched.ended()
        clock.now_s += STEP_S

    series = traffic.series()

    assert len(series) == STEPS
    assert len(traffic._steps) <= STEPS
    assert [ago_s for ago_s, _ in series] == [STEP_S * ago for ago in reversed(range(STEPS))]
    assert [step.requests for _, step in series] == [1] * (STEPS - 1) + [0]


def test_only_what_workers_or_the_router_did_wrong_is_a_failure() -> None:
    watched = Watched()
    traffic = watched.traffic
    for status, error in ((200, None), (400, "invalid_body"), (499, "client_gone"), (502, "stream_cut"), (503, None)):
        watched.ended(status=status, error=error)

    assert traffic.series()[-1][1].failed == 2


def test_a_workers_last_minute_is_its_own() -> None:
    watched = Watched()
    clock, traffic = watched.clock, watched.traffic
    watched.ended(decision=decision("w1"), prompt_tokens=100, cached_tokens=50)
    clock.now_s += 30
    watched.ended(decision=decision("w1"), prompt_tokens=100, cached_tokens=70)
    watched.ended(decision=decision("w2"))

    minute = traffic.last_minute(WorkerId("w1"))
    assert (minute.requests, minute.prompt_tokens, minute.cached_tokens) == (2, 200, 120)
    clock.now_s += 40
    assert traffic.last_minute(WorkerId("w1")).requests == 1
    assert traffic.last_minute(WorkerId("nobody")).requests == 0


def test_what_other_processes_counted_is_added_once_and_stays_when_they_end() -> None:
    here, there, after = Watched(), Watched(), Watched()
    here.ended(decision=decision("w1"))
    there.ended(decision=decision("w1"), ttft_s=0.5)
    here.traffic.heard(1, there.traffic.dump())
    there.ended(decision=decision("w1"), status=503)
    here.traffic.heard(1, there.traffic.dump())
    both = here.traffic.last_minute(WorkerId("w1"))
    here.traffic.gone(1)
    after.ended(decision=decision("w1"))
    here.traffic.heard(1, after.traffic.dump())

    assert (both.requests, both.failed, sum(both.ttft.values())) == (3, 1, 3)
    assert here.traffic.last_minute(WorkerId("w1")).requests == 4
    assert sum(step.requests for _, step in here.traffic.series()) == 4


def test_a_process_tells_its_last_steps_and_one_that_joins_hears_all() -> None:
    here, joined = Watched(), Watched()
    for _ in range(6):
        here.ended()
        here.clock.now_s += STEP_S
    joined.clock.now_s = here.clock.now_s
    told = here.traffic.dump()
    joined.traffic.heard(0, here.traffic.dump(whole=True))

    assert len(told) < 6
    assert sum(step.requests for _, step in joined.traffic.series()) == 6
    joined.clock.now_s += STEPS * STEP_S
    joined.traffic.heard(0, [(int(joined.clock.now_s / STEP_S), None, 1, 0, 0, 0, {})])
    assert sum(step.requests for _, step in joined.traffic.series()) == 1


def test_quantiles_are_within_a_bin_of_the_truth() -> None:
    rng = Random(1)
    watched = Watched()
    values = sorted(rng.lognormvariate(-1, 1) for _ in range(2000))
    for value in values:
        watched.ended(ttft_s=value)

    found = quantiles(watched.traffic.series()[-1][1].ttft, (0.5, 0.9))

    assert found == [pytest.approx(values[1000], rel=0.06), pytest.approx(values[1800], rel=0.06)]
    assert quantiles(Counter(), (0.5,)) == [None]
