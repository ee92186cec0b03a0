"""Runs side by side: one table for people, one JSON for programs, one CSV row per request.

Called by the commands with finished runs. Not here: definitions of the figures (measures.py).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from rich.table import Table

from loadtests.comparison import Run
from loadtests.measures import Distribution, RequestResult

LATE_S = 0.1
"""A p99 of lateness above this is reported: the load was then no longer an open loop."""

CSV_COLUMNS = (
    "run", "session_id", "turn", "workload", "start_s", "lag_s", "ttft_s", "itl_mean_s", "e2e_s", "prompt_tokens",
    "cached_tokens", "completion_tokens", "worker", "error", "error_detail",
)  # fmt: skip


def comparison_table(runs: Sequence[Run], title: str) -> Table:
    """One row per run. Latencies are p50 / p90 / p99 of answered requests."""
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("policy", no_wrap=True)
    for heading in (
        "requests", "errors", "cached\ntokens", "TTFT ms\np50 / p90 / p99", "ITL ms\np50 / p90 / p99",
        "E2E s\np50 / p90 / p99", "imbalance\nrequests / uncached", "output\ntokens/s",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    goodput = any(run.summary.goodput_ratio is not None for run in runs)
    if goodput:
        table.add_column("goodput", justify="right")
    for run in runs:
        summary = run.summary
        cells = [
            run.name if run.complete else f"{run.name} (interrupted)",
            f"{summary.requests}",
            f"{summary.errors}",
            _percent(summary.cached_token_ratio),
            _spread(summary.ttft_s, 1000, 0),
            _spread(summary.itl_s, 1000, 1),
            _spread(summary.e2e_s, 1, 2),
            f"{_number(summary.imbalance_requests)} / {_number(summary.imbalance_uncached)}",
            f"{summary.output_token_rate:.0f}",
        ]
        if goodput:
            cells.append(_percent(summary.goodput_ratio))
        table.add_row(*cells)
    return table


def remarks(runs: Sequence[Run]) -> Iterator[str]:
    """What a reader of the table must know: failures by kind, missing counts, requests that left late."""
    for run in runs:
        summary = run.summary
        for kind, count in summary.error_kinds.items():
            example = next(one.error_detail for one in run.results if one.error is not None and one.error.value == kind)
            yield f"{run.name}: {count} x {kind}, for example: {example}"
        if summary.cached_token_ratio is None and summary.errors < summary.requests:
            yield f"{run.name}: no worker reported cached tokens; SGLang does with --enable-cache-report."
        if summary.lag_s is not None and summary.lag_s.p99 > LATE_S:
            yield (
                f"{run.name}: requests left late, p99 {summary.lag_s.p99:.2f} s: the sender was at its limit, "
                "so waiting at the sender is missing from the latencies."
            )


def as_json(runs: Sequence[Run], about: dict[str, object]) -> bytes:
    """`about` (what was run) and every run's summary, indented."""
    summaries = [{"policy": run.name, "complete": run.complete, **msgspec.to_builtins(run.summary)} for run in runs]
    return msgspec.json.format(msgspec.json.encode({**about, "runs": summaries}))


def write_csv(path: Path, runs: Sequence[Run]) -> None:
    """One row per request, in order of completion; empty where unknown. Raises OSError."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        for run in runs:
            writer.writerows([run.name, *csv_row(result)] for result in run.results)


def csv_row(result: RequestResult) -> list[object]:
    """The cells of CSV_COLUMNS after the first."""
    gaps = result.gaps_s
    return [
        result.session_id,
        result.turn,
        result.workload,
        _seconds(result.start_s),
        _seconds(result.lag_s),
        _seconds(result.ttft_s),
        _seconds(sum(gaps) / len(gaps) if gaps else None),
        _seconds(result.e2e_s),
        result.prompt_tokens,
        result.cached_tokens,
        result.completion_tokens,
        result.worker,
        None if result.error is None else result.error.value,
        result.error_detail,
    ]


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _spread(values: Distribution | None, factor: float, decimals: int) -> str:
    if values is None:
        return "-"
    return " / ".join(f"{value * factor:.{decimals}f}" for value in (values.p50, values.p90, values.p99))


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
