"""The pictures of a report, each as SVG text that a page can hold inline. Needs matplotlib and numpy.

Called by report.py. Not here: the numbers (scenario_outcome.py), the page (report.py).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from loadtests.differences import Verdict
from loadtests.figures import Unit
from loadtests.measures import RequestResult, totals_by_worker
from loadtests.scenario_outcome import Outcome

COLOURS = ("#56606b", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b")
"""The first arm in grey, the others from Okabe and Ito's palette for colour-blind readers."""
_STYLE: dict[Any, Any] = {  # its keys are a Literal of every setting there is
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
    "svg.hashsalt": "trieway",  # the same report twice is the same file
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa3ad",
    "axes.labelcolor": "#3b434c",
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "xtick.color": "#5a636d",
    "ytick.color": "#5a636d",
    "legend.frameon": False,
}
_LEAST_S = 1e-4  # axes are logarithmic


def colour(outcome: Outcome, arm: str) -> str:
    """The same for one arm in every picture."""
    return COLOURS[list(outcome.scenario.arms).index(arm) % len(COLOURS)]


def distributions(outcome: Outcome) -> str:
    """TTFT and E2E of all answered requests: the share that was at least so quick."""

    def draw(canvas: Canvas) -> None:
        left, right = canvas.subplots(1, 2, sharey=True)
        _ecdf(left, outcome, "time to first token", lambda one: one.ttft_s)
        _ecdf(right, outcome, "end to end", lambda one: one.e2e_s)
        left.set_ylabel("share of answers")
        for name, spec in outcome.scenario.objectives.items():
            for axes, limit in ((left, spec.ttft_s), (right, spec.e2e_s)):
                if limit is not None:
                    axes.axvline(limit, color="#3b434c", linewidth=0.8, linestyle=":")
                    axes.annotate(name, (limit, 0.03), fontsize=8, rotation=90, ha="right", color="#3b434c")
        right.legend(loc="lower right", fontsize=8.5)

    return _svg(draw, 10.4, 3.6)


def through_time(outcome: Outcome) -> str:
    """Median and 90th percentile of TTFT by when a request was sent, over all repetitions."""

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for arm in outcome.arms:
            pairs = sorted(
                (one.start_s, one.ttft_s) for one in _answered(outcome, arm) if one.ttft_s is not None
            )
            if len(pairs) < 2:
                continue
            windows = np.array_split(np.array(pairs), max(1, min(40, len(pairs) // 12)))
            at = [float(np.median(window[:, 0])) for window in windows]
            median, high = ([float(np.percentile(one[:, 1], percent)) for one in windows] for percent in (50, 90))
            axes.plot(at, median, color=colour(outcome, arm), label=arm)
            axes.plot(at, high, color=colour(outcome, arm), linestyle="--", linewidth=1, alpha=0.8)
        axes.set(xlabel="seconds since the start of the run", ylabel="TTFT", yscale="log")
        axes.set_title("TTFT through the run: median, and 90th percentile dashed")
        _seconds(axes.yaxis)
        axes.legend(fontsize=8.5, ncols=4, loc="upper left")

    return _svg(draw, 10.4, 3.2)


def caches_and_balance(outcome: Outcome) -> str:
    """Cached share per arm with a dot per run, and how much each worker had to compute."""

    def draw(canvas: Canvas) -> None:
        left, right = canvas.subplots(1, 2)
        for row, arm in enumerate(outcome.arms):
            shares = [one.run.summary.cached_token_ratio or 0.0 for one in outcome.of(arm)]
            left.barh(row, float(np.mean(shares)), color=colour(outcome, arm), height=0.55, alpha=0.85)
            left.plot(shares, [row] * len(shares), "o", color="black", markersize=3, alpha=0.7)
            _workers(right, outcome, arm, row)
        for axes in (left, right):
            axes.set_yticks(range(len(outcome.arms)), outcome.arms)
            axes.invert_yaxis()
            axes.grid(visible=False, axis="y")
        left.set_title("prompt tokens found in a cache")
        left.xaxis.set_major_formatter(PercentFormatter(1.0))
        left.set_xlim(0, None)
        right.set_title("computed prompt tokens per worker, 1 = mean")
        right.set_xlim(0, None)

    return _svg(draw, 10.4, 1.1 + 0.42 * len(outcome.arms))


def changes(outcome: Outcome) -> str:
    """Every figure's change against the first arm, with its interval."""
    timed = [figure for figure in outcome.figures if figure.unit is Unit.SECONDS]

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        others = outcome.arms[1:]
        step = 0.7 / len(others)
        for index, arm in enumerate(others):
            for row, figure in enumerate(timed):
                change = outcome.change(arm, figure.key)
                if change is None or change.change is None:
                    continue
                y = row - 0.35 + step * (index + 0.5)
                if change.low is not None and change.high is not None:
                    axes.plot([change.low, change.high], [y, y], color=colour(outcome, arm), linewidth=2)
                filled = change.verdict is not Verdict.UNCLEAR
                axes.plot(change.change, y, "o", color=colour(outcome, arm), markersize=5,
                          markerfacecolor=colour(outcome, arm) if filled else "white",
                          label=arm if row == 0 else None)  # fmt: skip
        axes.axvline(0, color="#3b434c", linewidth=0.9)
        axes.set_yticks(range(len(timed)), [figure.label for figure in timed])
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+.0f} %"))
        axes.set_title(f"change against {outcome.arms[0]}, 95 % intervals; left is quicker, hollow is unclear")
        axes.legend(fontsize=8.5, loc="best")

    return _svg(draw, 10.4, 1.2 + 0.2 * len(timed) * max(1.6, 0.75 * (len(outcome.arms) - 1)))


def goodput(outcome: Outcome) -> str:
    """Share of requests within the objective by offered rate: every trial of every search."""
    named = outcome.scenario.goodput_objective

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for found in outcome.goodput:
            trials = sorted(found.trials, key=lambda trial: trial.requests_per_s)
            tone = colour(outcome, found.arm)
            same = [trial for trial in trials if trial.seed == 0]  # other seeds confirm
            rates, shares = [trial.requests_per_s for trial in same], [trial.share for trial in same]
            axes.plot(rates, shares, "-", color=tone, linewidth=1, alpha=0.5)
            for trial in trials:
                face = "white" if trial.gave_up else tone
                axes.plot(trial.requests_per_s, trial.share, "o", color=tone, markerfacecolor=face, markersize=4)
            best = found.best
            label = found.arm if best is None else f"{found.arm}: {best.requests_per_s:.2f} requests/s"
            axes.plot([], [], "o-", color=tone, label=label)
            if best is not None:
                axes.axvline(best.requests_per_s, color=tone, linewidth=0.8, linestyle=":")
        if named is not None:
            axes.axhline(named[1].share, color="#3b434c", linewidth=0.9)
        axes.set(xlabel="offered requests/s", ylabel="within the objective", xscale="log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_title("trials of the search; hollow ones were given up early and show the most they could reach")
        axes.legend(fontsize=8.5, loc="lower left")

    return _svg(draw, 10.4, 3.4)


def _workers(axes: Axes, outcome: Outcome, arm: str, row: int) -> None:
    """One dot per worker and run, at its share of the computed tokens over the mean share."""
    for one in outcome.of(arm):
        answered = [result for result in one.run.results if result.ok]
        totals = totals_by_worker(answered, lambda result: result.uncached_tokens or 0, one.run.workers)
        mean = sum(totals.values()) / len(totals) if totals else 0
        if mean:
            shares = [total / mean for total in totals.values()]
            axes.plot(shares, [row] * len(shares), "o", color=colour(outcome, arm), markersize=5, alpha=0.6)
    axes.axvline(1.0, color="#9aa3ad", linewidth=0.8)


def _ecdf(
    axes: Axes, outcome: Outcome, title: str, quantity: Callable[[RequestResult], float | None]
) -> None:
    for arm in outcome.arms:
        values = sorted(
            max(_LEAST_S, value) for one in _answered(outcome, arm) if (value := quantity(one)) is not None
        )
        if values:
            values = _thinned(values)
            shares = np.arange(1, len(values) + 1) / len(values)
            axes.step(values, shares, where="post", color=colour(outcome, arm), label=arm)
    axes.set(xscale="log", ylim=(0, 1.01))
    axes.set_title(title)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _seconds(axes.xaxis)


def _thinned(values: list[float], most: int = 600) -> list[float]:
    """At most so many quantiles: a line does not need more, and the page stays small."""
    if len(values) <= most:
        return values
    return [float(value) for value in np.quantile(values, np.linspace(1 / most, 1, most))]


def _answered(outcome: Outcome, arm: str) -> Sequence[RequestResult]:
    return [result for one in outcome.of(arm) for result in one.run.results if result.ok]


def _seconds(axis: Any) -> None:
    """Ticks at 1, 2 and 5, in ms below a second."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s" if value >= 1 else f"{1000 * value:g} ms"))
    axis.set_minor_formatter(NullFormatter())


def _svg(draw: Callable[[Canvas], None], width_in: float, height_in: float) -> str:
    with mpl.rc_context(_STYLE):
        canvas = Canvas(figsize=(width_in, height_in), layout="constrained")
        draw(canvas)
        text = io.StringIO()
        canvas.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
