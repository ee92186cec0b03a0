"""The search for parameters, on functions whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from workers.calibrate.least_squares import minimise

XS = [1.0, 2.0, 5.0, 10.0, 30.0]


def test_it_finds_the_parameters_of_a_curve() -> None:
    def errors(p: Mapping[str, float]) -> list[float]:
        return [math.hypot(p["floor"], x * p["slope"]) / math.hypot(3.0, x * 0.7) - 1 for x in XS]

    assert minimise(errors, {"floor": 0.1, "slope": 10.0}) == pytest.approx({"floor": 3.0, "slope": 0.7}, rel=0.01)


def test_one_disturbed_figure_does_not_move_the_rest() -> None:
    def errors(p: Mapping[str, float]) -> list[float]:
        measured = [2.0 * x for x in XS[:-1]] + [600.0]  # ten times too much
        return [p["slope"] * x / value - 1 for x, value in zip(XS, measured, strict=True)]

    assert minimise(errors, {"slope": 1.0})["slope"] == pytest.approx(2.0, rel=0.05)


def test_a_parameter_that_decides_nothing_stays_where_it_was() -> None:
    found = minimise(lambda p: [p["slope"] / 2 - 1], {"slope": 1.0, "unseen": 7.0})
    assert found["unseen"] == pytest.approx(7.0)
