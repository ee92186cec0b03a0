"""A replay's runs as one table for people and one JSON for programs. Definitions of the figures: measures.py.

`imbalance` is the busiest worker's share of computed prompt tokens over the mean share; `goodput_ratio` the share of
all requests whose TTFT met the objective. Called by replay_command.py and replay_sweep.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from rich.table import Table

from loadtests.measures import Distribution
from loadtests.replay import ReplayRun, busy_share


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the JSON, in seconds and ratios. None where nothing was answered."""

    policy: str
    token_hit_ratio: float | None
    ttft_mean_s: float | None
    ttft_p50_s: float | None
    ttft_p90_s: float | None
    ttft_p99_s: float | None
    e2e_mean_s: float | None
    e2e_p50_s: float | None
    e2e_p90_s: float | None
    e2e_p99_s: float | None
    goodput_ratio: float | None
    imbalance: float | None
    imbalance_requests: float | None
    busy_ratio: float
    requests: int
    errors: int


def figures(run: ReplayRun) -> Figures:
    """The row of one run."""
    summary = run.summary
    ttft, e2e = summary.ttft_s, summary.e2e_s
    return Figures(
        policy=run.policy,
        token_hit_ratio=summary.cached_token_ratio,
        ttft_mean_s=None if ttft is None else ttft.mean,
        ttft_p50_s=None if ttft is None else ttft.p50,
        ttft_p90_s=None if ttft is None else ttft.p90,
        ttft_p99_s=None if ttft is None else ttft.p99,
        e2e_mean_s=None if e2e is None else e2e.mean,
        e2e_p50_s=None if e2e is None else e2e.p50,
        e2e_p90_s=None if e2e is None else e2e.p90,
        e2e_p99_s=None if e2e is None else e2e.p99,
        goodput_ratio=summary.goodput_ratio,
        imbalance=summary.imbalance_uncached,
        imbalance_requests=summary.imbalance_requests,
        busy_ratio=busy_share(run),
        requests=summary.requests,
        errors=summary.errors,
    )


def replay_table(runs: Sequence[ReplayRun], title: str) -> Table:
    """One row per run."""
    table = Table(title=title, title_justify="left")
    table.add_column("policy", no_wrap=True)
    objective_s = runs[0].config.objective_s
    for heading in (
        "token\nhits", "TTFT s\nmean", "TTFT s\np50 / p90 / p99", "E2E s\nmean", "E2E s\np50 / p90 / p99",
        f"TTFT\n<= {objective_s:g} s", "imbalance", "busy",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for run in runs:
        summary = run.summary
        table.add_row(
            run.policy,
            _percent(summary.cached_token_ratio),
            *_spread(summary.ttft_s),
            *_spread(summary.e2e_s),
            _percent(summary.goodput_ratio),
            "-" if summary.imbalance_uncached is None else f"{summary.imbalance_uncached:.2f}",
            _percent(busy_share(run)),
        )
    return table


def remarks(runs: Sequence[ReplayRun]) -> Iterator[str]:
    """What a reader of the table must know: requests that no worker could take."""
    for run in runs:
        if run.summary.errors:
            example = next(one.error_detail for one in run.results if not one.ok)
            yield f"{run.policy}: {run.summary.errors} requests were refused, for example: {example}"


def as_json(runs: Sequence[ReplayRun], about: dict[str, object]) -> bytes:
    """`about` (what was run) and one object per run under `results`, indented."""
    return msgspec.json.format(msgspec.json.encode({**about, "results": [figures(run) for run in runs]}))


def _spread(values: Distribution | None) -> tuple[str, str]:
    if values is None:
        return "-", "-"
    return f"{values.mean:.3f}", " / ".join(f"{value:.2f}" for value in (values.p50, values.p90, values.p99))


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.1f} %"
