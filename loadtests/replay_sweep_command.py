"""`trieway replay-sweep`: a TOML file of traces, fleets, loads and policies in, one table out.

Not here: the cells (replay_sweep.py), the table (replay_sweep_table.py).
"""

from __future__ import annotations

import os
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from loadtests.replay_command import check_policies
from loadtests.replay_ideal import Ideal
from loadtests.replay_sweep import Cell, Line, Plan, SweepError, cells, read_lines, read_plan, run_sweep
from loadtests.replay_sweep_table import sweep_table, verdict
from loadtests.replay_sweep_targets import said
from loadtests.trace_file import TraceError

EXIT_INTERRUPTED = 130  # as shells report a program ended by Ctrl-C


@click.command(name="replay-sweep")
@click.argument("plan_path", metavar="FILE.toml", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", "out_path", type=click.Path(path_type=Path, dir_okay=False),
              help="Results, one JSON line per cell; cells found there are not run again.  [default: FILE.jsonl]")
@click.option("--jobs", type=click.IntRange(1, 256), default=lambda: os.cpu_count() or 1, show_default="cores",
              help="Processes.")
@click.option("--policy", "policies", multiple=True, callback=check_policies, metavar="NAME[:PARAM=VALUE,...]",
              help="Use these instead of the file's `policies`; baseline and peers stay.")
@click.option("--traces", "folder", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="Look for the plan's traces in this folder.")
@click.option("--again", multiple=True, metavar="POLICY",
              help="Run this policy's cells again, because it has changed; repeatable.")
@click.option("--json", "json_out", is_flag=True, help="Print the lines of this sweep as a JSON array.")  # fmt: skip
def replay_sweep(
    plan_path: Path, out_path: Path | None, jobs: int, policies: tuple[str, ...], folder: Path | None,
    again: tuple[str, ...], json_out: bool,
) -> None:
    """Replay many cells: every trace x workers x capacity x load x seed x policy of FILE.toml.

    The table compares each policy with the baseline, the best peer and a pooled cache of the same total size.
    """
    errors = Console(stderr=True)
    try:
        plan = read_plan(plan_path)
        if policies:
            plan = msgspec.structs.replace(plan, policies=policies)
        if folder is not None:
            plan = msgspec.structs.replace(plan, traces=tuple(str(folder / Path(name).name) for name in plan.traces))
        out_path = out_path or plan_path.with_suffix(".jsonl")
        wanted = list(cells(plan))
        done = {line.cell: line for line in read_lines(out_path) if line.cell.policy not in again}
        todo = [(cell, best) for cell, best in wanted if cell not in done]
        errors.print(f"{len(wanted)} cells, {len(wanted) - len(todo)} of them in {out_path}", highlight=False)
        interrupted = _run(todo, out_path, jobs, done, errors)
    except (SweepError, TraceError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    lines = [done[cell] for cell, _ in wanted if cell in done]
    _report(lines, plan, json_out=json_out)
    if interrupted:
        errors.print(f"Interrupted after {len(lines)} of {len(wanted)} cells; run the same command to go on.")
        raise SystemExit(EXIT_INTERRUPTED)


def _run(todo: list[tuple[Cell, Ideal]], path: Path, jobs: int, done: dict[Cell, Line], errors: Console) -> bool:
    """Adds to `done` what ends. Whether it was interrupted."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=errors, disable=not errors.is_terminal) as bars:
        task = bars.add_task("cells", total=len(todo))

        def ended(line: Line) -> None:
            done[line.cell] = line
            bars.advance(task)

        try:
            run_sweep(todo, path, jobs=jobs, on_line=ended)
        except KeyboardInterrupt:
            return True
    return False


def _report(lines: list[Line], plan: Plan, *, json_out: bool) -> None:
    if json_out:
        click.echo(msgspec.json.format(msgspec.json.encode(lines)))
        return
    if not lines:
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=260)
    console.print(sweep_table(lines, plan.baseline, plan.peers))
    for sentence in verdict(lines, plan.baseline, plan.peers):
        console.print(sentence, highlight=False)
    for sentence in said(plan, lines):
        console.print(sentence, highlight=False)
