"""From tallies to words: every measure with its interval, whether the experiment is decided, and whether an arm harms.

Pure. One measure decides, chosen before the start; all others are shown with intervals of their own that hold at every
look but not together. With several treatments alpha is divided among them. Called by live.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from math import log

from router.experiment.arm_tally import ArmTally, DurationTally
from router.experiment.boundary import log_evidence_above
from router.experiment.compare import Design, Difference, mean_difference, quantile_differences, spread_of
from router.experiment.config import ExperimentConfig

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
GUARD_ALPHA = 0.01
"""Chance that the guard ends an arm which does no harm."""
GUARD_FAILURES = 5
"""Failures before the guard acts: fewer can come from one incident."""
HIGHER_IS_BETTER = frozenset({"cached_ratio", "goodput"})


class Verdict(Enum):
    """Values are stable: the command, the dashboard and metrics show them."""

    RUNNING = "running"
    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no_difference"
    HARM = "harm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One measure of one treatment against the control."""

    measure: str
    unit: str
    higher_is_better: bool
    difference: Difference | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One treatment against the control. `why` is a sentence for people."""

    verdict: Verdict
    why: str
    measured: tuple[Measured, ...]


def judge(control: ArmTally, treatment: ArmTally, config: ExperimentConfig, design: Design) -> Judgement:
    """Look once. May be called at any time and as often as one likes: that is what the intervals are made for."""
    measured = measure_all(control, treatment, design)
    harm = _harm(control, treatment, config, design)
    if harm is not None:
        return Judgement(verdict=Verdict.HARM, why=harm, measured=measured)
    primary = next(each for each in measured if each.measure == config.primary)
    verdict, why = _decide(primary, config)
    return Judgement(verdict=verdict, why=why, measured=measured)


def measure_all(control: ArmTally, treatment: ArmTally, design: Design) -> tuple[Measured, ...]:
    """Every measure, in the order in which people read them."""
    rows: list[Measured] = []
    for name in ("ttft", "itl", "e2e"):
        a: DurationTally = getattr(control, name)
        b: DurationTally = getattr(treatment, name)
        rows.append(_row(f"{name}_mean", "s", mean_difference(a.mean, b.mean, design)))
        spread = spread_of(a.log, b.log, design) if a.log.count and b.log.count else None
        found: Sequence[Difference | None] = [None] * len(QUANTILES)
        if spread is not None:
            found = quantile_differences(a.spectrum, b.spectrum, list(QUANTILES.values()), spread, design)
        rows += [_row(f"{name}_{share}", "s", each) for share, each in zip(QUANTILES, found, strict=True)]
    for name in ("cached_ratio", "goodput", "error_rate"):
        rows.append(_row(name, "ratio", mean_difference(getattr(control, name), getattr(treatment, name), design)))
    return tuple(rows)


def _row(measure: str, unit: str, difference: Difference | None) -> Measured:
    return Measured(
        measure=measure, unit=unit, higher_is_better=measure in HIGHER_IS_BETTER, difference=difference
    )


def _decide(primary: Measured, config: ExperimentConfig) -> tuple[Verdict, str]:
    found = primary.difference
    if found is None or found.low is None or found.high is None:
        return Verdict.RUNNING, "Too few independent sessions or blocks of time for an interval yet."
    low, high = found.relative_low, found.relative_high
    if low is None or high is None:
        return Verdict.RUNNING, f"{primary.measure} of the control is 0."
    interval = f"{100 * low:+.1f} % to {100 * high:+.1f} %"
    if found.excludes_zero:
        better = (found.low > 0) == primary.higher_is_better
        word = "better" if better else "worse"
        return (Verdict.BETTER if better else Verdict.WORSE), f"{primary.measure} is {word}: {interval}."
    if max(-low, high) <= config.no_difference:
        return Verdict.NO_DIFFERENCE, f"{primary.measure} differs by {interval}: less than matters."
    return Verdict.RUNNING, f"{primary.measure} differs by {interval}: not decided yet."


def _harm(control: ArmTally, treatment: ArmTally, config: ExperimentConfig, design: Design) -> str | None:
    """Why the treatment must be ended now; None when nothing says so.

    Errors are judged request by request, at once; slowness by its interval, once there is one.
    """
    failed, answered = treatment.failed, treatment.error_rate.count
    bearable = (control.failed + 1) / (control.error_rate.count + 2) if control.failed else 0.0
    bearable = min(0.99, bearable + config.guard_error_rate)
    if failed >= GUARD_FAILURES and log_evidence_above(failed, answered, bearable) > log(1 / GUARD_ALPHA):
        return f"{failed} of {answered} requests failed, which is more than {100 * bearable:.1f} % can explain."
    slower = mean_difference(control.ttft.mean, treatment.ttft.mean, replace(design, alpha=2 * GUARD_ALPHA))
    if slower and slower.relative_low is not None and slower.relative_low > config.guard_slowdown:
        return f"Mean TTFT is longer by at least {100 * slower.relative_low:.0f} %."
    return None
