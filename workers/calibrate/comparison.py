"""Two servers' runs of one workload side by side: figures, their ratios, one table and one JSON.

Called by commands.py. Not here: running (runners), what is sent (workload.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from workers.calibrate.experiment import Run
from workers.calibrate.measurement_file import Measurements


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One server at one level of load. Quantiles are over answered calls; ITL over all gaps between tokens."""

    calls: int
    errors: int
    ttft_p50_s: float
    ttft_p90_s: float
    itl_p50_s: float
    itl_p90_s: float
    e2e_p50_s: float
    e2e_p90_s: float
    cached_tokens: int
    prompt_tokens: int


MEASURES = ("ttft_p50_s", "ttft_p90_s", "itl_p50_s", "itl_p90_s", "e2e_p50_s", "e2e_p90_s", "cached_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One level of load on both."""

    name: str
    real: Figures
    simulated: Figures

    def ratio(self, measure: str) -> float | None:
        """Simulated to real; None where the real one is zero."""
        real = getattr(self.real, measure)
        return getattr(self.simulated, measure) / real if real else None


def compare_runs(real: Sequence[Run], simulated: Sequence[Run]) -> list[Row]:
    """Rows for the levels that both ran, by name."""
    ours = {run.experiment.name: run for run in simulated}
    return [
        Row(name=run.experiment.name, real=figures(run), simulated=figures(ours[run.experiment.name]))
        for run in real
        if run.experiment.name in ours
    ]


def figures(run: Run) -> Figures:
    """The figures of one run. All zero where every call failed."""
    good = [timing for timing in run.timings if timing.error is None]
    ttft = [timing.ttft_s for timing in good]
    itl = [gap for timing in good for gap in timing.gaps_s()]
    e2e = [timing.e2e_s for timing in good]
    return Figures(
        calls=len(run.timings),
        errors=len(run.timings) - len(good),
        ttft_p50_s=quantile(ttft, 0.5),
        ttft_p90_s=quantile(ttft, 0.9),
        itl_p50_s=quantile(itl, 0.5),
        itl_p90_s=quantile(itl, 0.9),
        e2e_p50_s=quantile(e2e, 0.5),
        e2e_p90_s=quantile(e2e, 0.9),
        cached_tokens=sum(timing.cached_tokens for timing in good),
        prompt_tokens=sum(timing.prompt_tokens for timing in good),
    )


def quantile(values: Sequence[float], share: float) -> float:
    """By linear interpolation between order statistics; 0 of no values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def comparison_table(real: Measurements, simulated: Measurements, rows: Sequence[Row]) -> Table:
    """real / simulated (ratio) in each cell."""
    title = (
        f"real: {real.facts.model}, {real.facts.hardware}, SGLang {real.facts.sglang_version}, {real.date}"
        "   (each cell: real / simulated, ratio)"
    )
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("load", no_wrap=True)
    headings = ("TTFT ms p50", "TTFT ms p90", "ITL ms p50", "ITL ms p90", "E2E s p50", "E2E s p90", "cached tokens")
    for heading in headings:
        table.add_column(heading, justify="right")
    table.add_column("errors", justify="right")
    for row in rows:
        cells = []
        for measure in MEASURES:
            scale, digits = (1.0, 0) if measure == "cached_tokens" else (1.0, 2) if "e2e" in measure else (1e3, 1)
            ours, theirs = getattr(row.simulated, measure) * scale, getattr(row.real, measure) * scale
            ratio = row.ratio(measure)
            shown = "-" if ratio is None else f"{ratio:.3f}" if measure == "cached_tokens" else f"{ratio:.2f}"
            cells.append(f"{theirs:,.{digits}f} / {ours:,.{digits}f}\n{shown}")
        table.add_row(row.name, *cells, f"{row.real.errors} / {row.simulated.errors}")
    return table


def comparison_json(real: Measurements, simulated: Measurements, rows: Sequence[Row]) -> dict[str, Any]:
    """The same for programs, with every figure in the units of its name."""
    return {
        "real": real.facts.as_json() | {"date": real.date},
        "simulated": simulated.facts.as_json() | {"date": simulated.date},
        "levels": [
            {
                "load": row.name,
                "real": _as_json(row.real),
                "simulated": _as_json(row.simulated),
                "ratio": {measure: row.ratio(measure) for measure in MEASURES},
            }
            for row in rows
        ],
    }


def _as_json(one: Figures) -> dict[str, float]:
    return {name: getattr(one, name) for name in ("calls", "errors", *MEASURES, "prompt_tokens")}
