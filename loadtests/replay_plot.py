"""A replay's runs as a picture: how TTFT and E2E are distributed, one line per policy. Needs matplotlib.

Called by replay_command.py, which imports it only when a plot is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl

from loadtests.measures import RequestResult
from loadtests.replay import ReplayRun

mpl.use("Agg")
from matplotlib import pyplot as plt

LEAST_S = 0.001  # the axis is logarithmic


def plot(runs: Sequence[ReplayRun], title: str, path: Path) -> None:
    """Writes the picture; its kind follows from the suffix. Raises OSError, and ValueError for a suffix without one."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), sharey=True, layout="constrained")
    panels: tuple[tuple[object, str, Callable[[RequestResult], float | None]], ...] = (
        (left, "time to first token, s", lambda result: result.ttft_s),
        (right, "end to end, s", lambda result: result.e2e_s),
    )
    for axes, label, quantity in panels:
        for run in runs:
            values = sorted(
                max(LEAST_S, value) for one in run.results if one.ok and (value := quantity(one)) is not None
            )
            shares = [(rank + 1) / len(values) for rank in range(len(values))]
            axes.step(values, shares, where="post", label=run.policy)  # type: ignore[attr-defined]
        axes.set(xscale="log", xlabel=label, ylim=(0, 1))  # type: ignore[attr-defined]
        axes.grid(visible=True, alpha=0.3)  # type: ignore[attr-defined]
    left.set_ylabel("share of requests")
    left.axvline(runs[0].config.objective_s, color="black", linewidth=0.8, linestyle=":")
    left.legend(fontsize="small")
    figure.suptitle(title)
    try:
        figure.savefig(path, dpi=150)
    finally:
        plt.close(figure)
