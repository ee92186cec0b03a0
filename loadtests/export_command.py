"""`trieway loadtest export`: the calls of a workload, for sglang.bench_serving and as a chat trace. Flags only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from loadtests.export import timed_calls, write_openai, write_trace
from loadtests.loadtest_command import chosen_workload
from loadtests.workloads import WORKLOADS


@click.command()
@click.argument("name", type=click.Choice(sorted(WORKLOADS)))
@click.option("--calls", type=click.IntRange(1), default=100, show_default=True, help="Calls to write.")
@click.option("--calls-per-s", type=click.FloatRange(0, min_open=True), default=4.0, show_default=True,
              help="Calls per second of the trace; give bench_serving the same --request-rate.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides texts and times; also for bench_serving.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change one size of the workload.")
@click.option("--openai", type=click.Path(path_type=Path, dir_okay=False), required=True,
              help="Write JSON lines for `bench_serving --dataset-name openai` here.")
@click.option("--trace", type=click.Path(path_type=Path, dir_okay=False), required=True,
              help="Write the same calls for `trieway loadtest trace` here.")  # fmt: skip
def export(
    name: str, calls: int, calls_per_s: float, seed: int, settings: Sequence[str], openai: Path, trace: Path
) -> None:
    """Write the calls of a workload, so that sglang.bench_serving and `trieway loadtest trace` send the same."""
    made = timed_calls(chosen_workload(name, settings, seed), calls=calls, calls_per_s=calls_per_s, seed=seed)
    try:
        write_openai(openai, made)
        write_trace(trace, made)
    except OSError as error:
        raise click.ClickException(f"cannot write {error.filename}: {error.strerror}") from error
    click.echo(f"{len(made)} calls over {made[-1].arrival_s:.1f} s: {openai}, {trace}")
