"""The picture of `trieway demo radix`: time to first token, question by question, for each way of choosing a worker.

Needs matplotlib. Called by demo_radix_command.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from loadtests.demo_radix import Round

_MISS, _HIT = "#d55e00", "#0072b2"
"""From Okabe and Ito's palette for colour-blind readers; misses are hollow besides."""
_GREY = "#5a636d"


def draw(path: Path, rounds: Sequence[Round], document_tokens: int) -> None:
    """Writes the picture, in the format that the name's ending says. Raises OSError."""
    figure = Figure(figsize=(3.4 * len(rounds) + 0.6, 3.6), layout="constrained")
    longest_ms = max(1000 * each.ttft_s for one in rounds for each in one.asked)
    panels = figure.subplots(1, len(rounds), sharey=True, squeeze=False)[0]
    for axes, one in zip(panels, rounds, strict=True):
        numbers = [each.number for each in one.asked]
        times_ms = [1000 * each.ttft_s for each in one.asked]
        axes.plot(numbers, times_ms, color="#c3c9cf", linewidth=1, zorder=1)
        for each, time_ms in zip(one.asked, times_ms, strict=True):
            face = _HIT if each.was_cached else "white"
            axes.plot(each.number, time_ms, "o", markersize=8, markeredgewidth=2, markerfacecolor=face,
                      markeredgecolor=_HIT if each.was_cached else _MISS)  # fmt: skip
            if each.worker is not None:
                axes.annotate(each.worker, (each.number, time_ms), xytext=(0, 8), textcoords="offset points",
                              ha="center", fontsize=7.5, color=_GREY)  # fmt: skip
        axes.set_title(f"{one.name}: {1000 * one.ttft_s:,.0f} ms in all", loc="left", fontsize=10, fontweight="bold")
        axes.set_xlabel("question about the same document")
        axes.set_xticks(numbers if len(numbers) <= 16 else numbers[:: len(numbers) // 8])
        axes.set_ylim(0, 1.2 * longest_ms)
        axes.grid(axis="y", color="#e4e7eb")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("time to first token, ms")
    entries = [_entry("document computed", "white", _MISS), _entry("document found in the cache", _HIT, _HIT)]
    figure.legend(handles=entries, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.suptitle(f"Questions about one document of {document_tokens:,} tokens", x=0.01, ha="left", fontsize=11)
    figure.savefig(path, dpi=150)


def _entry(label: str, face: str, edge: str) -> Line2D:
    return Line2D([], [], marker="o", linestyle="", markersize=8, markeredgewidth=2, markerfacecolor=face,
                  markeredgecolor=edge, label=label)  # fmt: skip
