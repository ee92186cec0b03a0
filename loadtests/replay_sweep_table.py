"""A sweep's lines as one table: each policy in each cell beside the baseline, the best peer and the pooled cache.

Seeds of a cell are averaged. A ratio is marked "<" when it is better and ">" when it is worse than noise: than 5 %, and
than twice the standard error of the seeds' paired log ratios. Called by replay_sweep_command.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from statistics import fmean, stdev

from rich.table import Table

from loadtests.replay_report import Figures
from loadtests.replay_sweep import Line

NOISE = 0.05
"""Differences below this are noise (of single seeds in this project's reference comparison)."""
Key = tuple[str, int, int, str]
Quantity = Callable[[Figures], float | None]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of two policies' means over the same seeds; `noise` is how far from 1 is still nothing, as a log."""

    value: float
    noise: float

    @property
    def mark(self) -> str:
        if self.value <= 0 or abs(math.log(self.value)) <= self.noise:
            return "="
        return "<" if self.value < 1 else ">"

    def __str__(self) -> str:
        return f"{self.value:.2f} {self.mark}"


def key_of(line: Line) -> Key:
    """The cell without seed and policy."""
    return (line.cell.trace, line.cell.workers, line.cell.capacity_tokens, line.cell.load)


def ratio(mine: Sequence[Line], other: Sequence[Line], quantity: Quantity) -> Ratio | None:
    """Mine over the other's, of the seeds that both have. None where nothing can be compared."""
    theirs = {line.cell.seed: quantity(line.figures) for line in other}
    pairs = []
    for line in mine:
        here, there = quantity(line.figures), theirs.get(line.cell.seed)
        if here is not None and there is not None and here > 0 and there > 0:
            pairs.append((here, there))
    if not pairs:
        return None
    logs = [math.log(here / there) for here, there in pairs]
    error = stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else 0.0
    value = fmean(here for here, _ in pairs) / fmean(there for _, there in pairs)
    return Ratio(value, max(NOISE, 2 * error))


def ttft_mean(row: Figures) -> float | None:
    return row.ttft_mean_s


def ttft_p90(row: Figures) -> float | None:
    return row.ttft_p90_s


def best_peer(rows: dict[str, list[Line]], peers: Iterable[str], quantity: Quantity) -> str | None:
    """The peer with the smallest mean over its seeds."""
    means = {peer: mean(rows[peer], quantity) for peer in peers if peer in rows}
    known = {peer: value for peer, value in means.items() if value is not None}
    return min(known, key=lambda peer: known[peer]) if known else None


def mean(lines: Sequence[Line], quantity: Quantity) -> float | None:
    values = [value for line in lines if (value := quantity(line.figures)) is not None]
    return fmean(values) if values else None


def sweep_table(lines: Sequence[Line], baseline: str, peers: Sequence[str]) -> Table:
    """One row per cell and policy; the baseline's and the peers' rows are dim."""
    table = Table(title="Ratios below 1 are better; < and > are beyond noise", title_justify="left")
    table.add_column("cell", no_wrap=True)
    table.add_column("policy", no_wrap=True)
    for heading in (
        "token\nhits", "pooled\nhits", "TTFT s\nmean", "\np90", "\np99", f"mean /\n{baseline}", f"p90 /\n{baseline}",
        "mean /\nbest peer", "p90 /\nbest peer", "E2E s\nmean", "goodput",
    ):  # fmt: skip
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("best peers\nof mean, of p90", no_wrap=True)
    for key, rows in by_cell(lines).items():
        table.add_section()
        for index, (policy, mine) in enumerate(rows.items()):
            style = "dim" if policy == baseline or policy in peers else None
            cells = _row(policy, mine, rows, baseline, [peer for peer in peers if peer != policy])
            table.add_row(_cell_name(key) if index == 0 else "", policy, *cells, style=style)
    return table


def by_cell(lines: Iterable[Line]) -> dict[Key, dict[str, list[Line]]]:
    """Lines by cell and policy, in order of appearance; of a cell that was run twice the last line counts."""
    latest = {(*key_of(line), line.cell.policy, line.cell.seed): line for line in lines}
    cells: dict[Key, dict[str, list[Line]]] = {}
    for line in latest.values():
        cells.setdefault(key_of(line), {}).setdefault(line.cell.policy, []).append(line)
    return cells


def verdict(lines: Sequence[Line], baseline: str, peers: Sequence[str]) -> list[str]:
    """For each policy that is no peer, against the baseline and the best peer of each cell: in how many comparisons it
    is worse, and the geometric mean of its ratios of mean TTFT.
    """
    cells = by_cell(lines)
    subjects = dict.fromkeys(policy for rows in cells.values() for policy in rows)
    said = []
    for policy in subjects:
        if policy == baseline or policy in peers:
            continue
        mine = [rows for rows in cells.values() if policy in rows]
        parts = []
        for name, against in ((baseline, (baseline,)), ("the best peer", tuple(peers))):
            found = {
                quantity: [
                    one
                    for rows in mine
                    if (other := best_peer(rows, against, quantity)) is not None
                    and (one := ratio(rows[policy], rows[other], quantity)) is not None
                ]
                for quantity in (ttft_mean, ttft_p90)
            }
            worse = sum(one.mark == ">" for ratios in found.values() for one in ratios)
            means = [one.value for one in found[ttft_mean]]
            average = f", {math.exp(fmean(map(math.log, means))):.2f} times its mean TTFT on average" if means else ""
            parts.append(f"worse than {name} in {worse} of {sum(map(len, found.values()))} comparisons{average}")
        said.append(f"{policy}, {len(mine)} cells: {'; '.join(parts)}")
    return said


def _row(
    policy: str, mine: Sequence[Line], rows: dict[str, list[Line]], baseline: str, peers: Sequence[str]
) -> list[str]:
    both = (ttft_mean, ttft_p90)
    compared = ["" if policy == baseline else _against(mine, rows, baseline, quantity) for quantity in both]
    best = [best_peer(rows, peers, quantity) for quantity in both]
    compared += [_against(mine, rows, peer, quantity) for peer, quantity in zip(best, both, strict=True)]
    return [
        _percent(mean(mine, lambda row: row.token_hit_ratio)),
        _percent(fmean(line.ideal_hit_ratio for line in mine)),
        *(_number(mean(mine, quantity)) for quantity in (ttft_mean, ttft_p90, lambda row: row.ttft_p99_s)),
        *compared,
        _number(mean(mine, lambda row: row.e2e_mean_s)),
        _percent(mean(mine, lambda row: row.goodput_ratio)),
        ", ".join(dict.fromkeys(peer or "-" for peer in best)),
    ]


def _against(mine: Sequence[Line], rows: dict[str, list[Line]], other: str | None, quantity: Quantity) -> str:
    found = ratio(mine, rows[other], quantity) if other is not None and other in rows else None
    return "-" if found is None else str(found)


def _cell_name(key: Key) -> str:
    trace, workers, capacity, load = key
    return f"{PurePath(trace).name.split('.')[0]}, {workers} x {capacity // 1000}k, {load}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
