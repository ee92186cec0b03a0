"""The boundary: wider than a single look's, tightest where planned, wider for few degrees of freedom."""

from __future__ import annotations

from math import inf, log
from random import Random

import pytest

from router.experiment.boundary import log_evidence_above, multiplier


def test_it_is_tightest_near_the_planned_amount_of_information() -> None:
    places = {progress: multiplier(progress, 0.05, 10**6) for progress in (0.01, 0.1, 0.5, 1.0, 2.0, 10.0, 100.0)}

    assert min(places, key=lambda progress: places[progress]) == 1.0
    assert places[1.0] == pytest.approx(3.02, abs=0.05)
    assert places[100.0] < 4.0
    assert places[0.01] > 8.0


def test_less_certainty_about_the_variance_widens_it_as_students_t_does() -> None:
    # t quantiles at the tail of z = 3.02 (two-sided 0.253 %): 3.49 with 19 degrees of freedom, 3.06 with 255
    z = multiplier(1.0, 0.05, 10**9)

    assert multiplier(1.0, 0.05, 19) / z == pytest.approx(3.47 / 3.02, abs=0.02)
    assert multiplier(1.0, 0.05, 255) / z == pytest.approx(3.06 / 3.02, abs=0.01)
    assert multiplier(1.0, 0.05, 0) == inf
    assert multiplier(0.0, 0.05, 100) == inf


def test_a_gaussian_mean_stays_inside_at_all_looks_together() -> None:
    """The mixture's promise in the case it was derived for: 300 walks, looked at after every step."""
    rng = Random(7)
    crossed = 0
    for _ in range(300):
        total = 0.0
        for step in range(1, 401):
            total += rng.gauss(0, 1)
            if abs(total) > multiplier(step / 400, 0.05, 10**9) * step**0.5:
                crossed += 1
                break

    assert crossed / 300 <= 0.05


def test_evidence_of_failures_is_quick_where_they_are_plain_and_silent_where_they_are_not() -> None:
    assert log_evidence_above(4, 4, 0.05) > log(100)
    assert log_evidence_above(1, 1, 0.05) < log(100)
    assert log_evidence_above(5, 100, 0.05) == -inf
    assert log_evidence_above(0, 0, 0.05) == 0.0
    rng = Random(3)
    alarms = 0
    for _ in range(300):
        failures = 0
        for trials in range(1, 301):
            failures += rng.uniform(0, 1) < 0.05
            if log_evidence_above(failures, trials, 0.05) > log(1 / 0.05):
                alarms += 1
                break
    assert alarms / 300 <= 0.05
