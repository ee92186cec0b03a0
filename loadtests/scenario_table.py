"""A scenario's outcome for people at a terminal: figures per arm, differences with intervals, goodput, remarks.

Called by scenario_command.py; report.py writes the same numbers the same way. Not here: how they are computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rich.table import Table

from loadtests.differences import Difference
from loadtests.figures import Figure, Unit
from loadtests.goodput import Goodput
from loadtests.scenario_outcome import Outcome
from loadtests.table import remarks as run_remarks

SHORT_S = 10.0
"""A trial whose requests arrive within this time says little about a rate that is to be kept up: a queue of several
answers' length has had no time to grow."""


def value_text(figure: Figure, value: float | None) -> str:
    """A value in its unit: milliseconds below ten seconds, shares in percent."""
    if value is None:
        return "-"
    if figure.unit is Unit.SHARE:
        return f"{100 * value:.1f} %"
    return f"{value:.2f} s" if value >= 10 else f"{1000 * value:.{1 if value < 0.1 else 0}f} ms"


def change_text(figure: Figure, difference: Difference | None) -> str:
    """A change with its interval: "-41 % [-48, -33]", or percentage points for shares."""
    if difference is None or difference.change is None:
        return "-"
    unit = "%" if figure.unit is Unit.SECONDS else "points"
    text = f"{_signed(difference.change)} {unit}"
    if difference.low is None or difference.high is None:
        return text
    return f"{text} [{_signed(difference.low)}, {_signed(difference.high)}]"


def _signed(ratio: float) -> str:
    percent = 100 * ratio
    return f"{percent:+.{0 if abs(percent) >= 10 else 1}f}"


def figures_table(outcome: Outcome) -> Table:
    """One row per figure, one column per arm."""
    requests = {arm: sum(one.run.summary.requests for one in outcome.of(arm)) for arm in outcome.arms}
    table = Table(title=f"{outcome.scenario.title}: {outcome.scenario.name}", title_justify="left")
    table.add_column("over all repetitions")
    for arm in outcome.arms:
        table.add_column(f"{arm}\n{requests[arm]} requests", justify="right")
    for figure in outcome.figures:
        table.add_row(figure.label, *(value_text(figure, outcome.values[arm][figure.key]) for arm in outcome.arms))
    table.add_row("imbalance of computed tokens", *(_imbalance(outcome, arm) for arm in outcome.arms))
    return table


def imbalances(outcome: Outcome, arm: str) -> list[float]:
    """Of each run: the busiest worker's computed prompt tokens over the mean."""
    return [value for one in outcome.of(arm) if (value := one.run.summary.imbalance_uncached) is not None]


def _imbalance(outcome: Outcome, arm: str) -> str:
    found = imbalances(outcome, arm)
    return f"{sum(found) / len(found):.2f}" if found else "-"


def differences_table(outcome: Outcome) -> Table:
    """One row per figure: each other arm against the first."""
    first, *others = outcome.arms
    table = Table(title=f"Against {first}, with 95 % intervals", title_justify="left")
    table.add_column("")
    for arm in others:
        table.add_column(arm, justify="right")
        table.add_column("")
    for figure in outcome.figures:
        cells = []
        for arm in others:
            difference = outcome.change(arm, figure.key)
            cells += [change_text(figure, difference), "" if difference is None else difference.verdict.value]
        table.add_row(figure.label, *cells)
    return table


def goodput_table(outcome: Outcome) -> Table:
    """One row per arm."""
    named = outcome.scenario.goodput_objective
    what = "" if named is None else f": {100 * named[1].share:g} % of requests with {named[1]}"
    table = Table(title=f"Goodput{what}", title_justify="left")
    table.add_column("arm")
    for heading in ("highest rate\nrequests/s", "x the workload's", "first rate\nthat failed", "trials"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for found in outcome.goodput:
        best = found.best
        table.add_row(
            found.arm,
            "none" if best is None else f"{best.requests_per_s:.2f}",
            "-" if best is None else f"{best.rate:.3g}",
            "-" if found.failed_rate is None else f"{found.failed_rate:.3g}",
            f"{len(found.trials)}",
            goodput_remark(found),
        )
    return table


def goodput_remark(found: Goodput) -> str:
    """What a reader of a goodput must know."""
    if found.best is None:
        return f"stopped {found.stopped}" if found.stopped else "no rate met the objective"
    if found.best.arrivals_s < SHORT_S:
        return f"too high: all arrived within {found.best.arrivals_s:.2g} s, so no queue could grow; use more sessions"
    if found.stopped:
        return f"stopped {found.stopped}: a lower bound"
    if found.failed_rate is None:
        return "no rate failed: a lower bound"
    return "confirmed" if found.confirmed else ""


def remarks(outcome: Outcome) -> Iterator[str]:
    """Failures, late requests, missing counts; and why there are no differences or intervals."""
    runs = [replace(one.run, name=f"{one.arm} (repetition {one.repetition + 1})") for one in outcome.passes]
    yield from run_remarks(runs)
    if any(not one.run.complete for one in outcome.passes):
        yield "Interrupted: differences use only repetitions that every arm completed."
    if len(outcome.arms) > 1 and not outcome.changes:
        yield "No repetition was completed by every arm, so there are no differences."
    if outcome.changes and all(change.low is None for change in outcome.changes):
        yield "Too few sessions for intervals; use more sessions or repetitions."
