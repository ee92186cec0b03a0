"""`trieway replay`: a trace through policies on simulated engines in virtual time. Flags in, table out.

Not here: the recipe (replay.py), the rows (replay_report.py), many cells at once (replay_sweep.py).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from loadtests.lazy_command import missing_extra
from loadtests.measures import RequestResult
from loadtests.replay import ReplayConfig, ReplayRun, replay
from loadtests.replay_load import load_traffic
from loadtests.replay_policy import PolicyError, parsed
from loadtests.replay_report import as_json, remarks, replay_table
from loadtests.replay_source import ReplayTraffic
from loadtests.trace_file import TraceError
from workers.simulated.cost_file import read_cost_model
from workers.simulated.cost_model import H200_QWEN3_8B

DEFAULT_POLICIES = ("round_robin", "least_in_flight", "prefix_match", "expected_ttft")


def check_policies(_context: click.Context, _parameter: click.Parameter, typed: tuple[str, ...]) -> tuple[str, ...]:
    """Rejects what names no policy, before anything runs."""
    for one in typed:
        try:
            parsed(one)
        except PolicyError as error:
            raise click.BadParameter(str(error)) from error
    return typed


@click.command(name="replay")
@click.argument("source", metavar="TRACE")
@click.option("--policy", "policies", multiple=True, callback=check_policies, metavar="NAME[:PARAM=VALUE,...]",
              help=f"Policy to run; repeat to compare.  [default: {', '.join(DEFAULT_POLICIES)}]")
@click.option("--workers", type=click.IntRange(1, 1024), default=8, show_default=True, help="Simulated engines.")
@click.option("--capacity", "capacity_tokens", type=click.IntRange(1), default=699_103, show_default=True,
              help="KV cache of each engine, in tokens.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
              help="Requests arrive this many times as often.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides ties, and arrivals inside a clock tick.")
@click.option("--limit", type=click.IntRange(1), help="Use only the first so many requests (or sessions).")
@click.option("--objective", "objective_s", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
              help="TTFT, in seconds, that counts towards goodput.")
@click.option("--load-poll-s", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
              help="How often policies hear of the engines' load, in seconds.")
@click.option("--turns", type=click.Choice(["wait", "overlap"]),
              help="Whether a session's next turn waits for the answer before it.  [default: wait for chat calls, "
              "overlap for traces without text]")
@click.option("--exact", is_flag=True, help="Tell policies what each engine's cache holds, as KV events do.")
@click.option("--spread/--no-spread", default=True, show_default=True,
              help="Spread arrivals that share a timestamp over the tick of the trace's clock.")
@click.option("--sessions-per-s", type=click.FloatRange(0, min_open=True), default=4.0, show_default=True,
              help="For a workload: sessions that start per second.")
@click.option("--cost-model", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="File of the engine's timing, as calibration writes it.  [default: Qwen3-8B on an H200]")
@click.option("--tools", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Tool lists that a chat trace names.  [default: NAME_tools.json beside NAME_*.jsonl]")
@click.option("--json", "json_out", is_flag=True, help="Print JSON instead of a table.")
@click.option("--plot", "plot_path", type=click.Path(path_type=Path, dir_okay=False),
              help="Draw how TTFT and E2E are distributed, into this file (.png, .svg, .pdf).")  # fmt: skip
def replay_command(
    source: str,
    policies: tuple[str, ...],
    limit: int | None,
    turns: str | None,
    sessions_per_s: float,
    cost_model: Path | None,
    tools: Path | None,
    json_out: bool,
    plot_path: Path | None,
    **cell: object,
) -> None:
    """Replay TRACE through policies on simulated engines, in virtual time.

    TRACE is a file (Mooncake's blocks or chat calls as JSON lines, Azure's arrivals as CSV; each may be gzipped), a
    decision log or a folder of them, or the name of a workload. The same seed gives the same figures.
    """
    try:
        model = H200_QWEN3_8B if cost_model is None else read_cost_model(cost_model)
        config = ReplayConfig(cost_model=model, **cell)  # type: ignore[arg-type] # click has converted them
        wait = None if turns is None else turns == "wait"
        traffic = load_traffic(
            source, limit=limit, tools=tools, wait=wait, seed=config.seed, sessions_per_s=sessions_per_s
        )
        runs = _run_all(traffic, policies or DEFAULT_POLICIES, config)
    except (TraceError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    title = (
        f"{traffic.name}: {len(traffic.requests)} requests, {config.workers} workers of {config.capacity_tokens} "
        f"tokens, rate x{config.rate:g}, seed {config.seed}"
    )
    if json_out:
        click.echo(as_json(runs, {"source": source, "limit": limit, **_about(config)}))
    else:
        _print(runs, title)
    if plot_path is not None:
        _plot(runs, title, plot_path)


def _run_all(traffic: ReplayTraffic, policies: Sequence[str], config: ReplayConfig) -> list[ReplayRun]:
    """One run after the other, with a bar each on standard error where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    runs = []
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        for policy in policies:
            task = bars.add_task(policy, total=len(traffic.requests))
            started_s = time.perf_counter()
            runs.append(replay(traffic, policy, config, on_result=partial(_advance, bars, task)))
            took_s = time.perf_counter() - started_s
            if not console.is_terminal:
                speed = len(traffic.requests) / took_s
                console.print(f"{policy}: {len(traffic.requests)} requests in {took_s:.2f} s ({speed:.0f} a second)")
    return runs


def _advance(bars: Progress, task: TaskID, _result: RequestResult) -> None:
    bars.advance(task)


def _about(config: ReplayConfig) -> dict[str, object]:
    return {
        "workers": config.workers,
        "capacity_tokens": config.capacity_tokens,
        "rate": config.rate,
        "seed": config.seed,
        "objective_s": config.objective_s,
        "load_poll_s": config.load_poll_s,
        "exact": config.exact,
        "cost_model": f"{config.cost_model.model}, {config.cost_model.hardware}",
    }


def _print(runs: Sequence[ReplayRun], title: str) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    console.print(replay_table(runs, title))
    for remark in remarks(runs):
        console.print(remark, markup=False, soft_wrap=True)


def _plot(runs: Sequence[ReplayRun], title: str, path: Path) -> None:
    try:
        from loadtests.replay_plot import plot
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "matplotlib") from error
    try:
        plot(runs, title, path)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"cannot write {path}: {error}") from error
