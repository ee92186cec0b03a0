"""`trieway workers calibrate` and `compare`: flags, files and output. What is measured is in the modules beside.

Imports nothing heavy before a command runs; they need aiohttp, click and rich, and fitting needs numpy.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workers.simulated.errors import BadOption

if TYPE_CHECKING:
    from workers.calibrate.experiment import Experiment, Run
    from workers.calibrate.measurement_file import Measurements

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--url", help="Server to measure. Nothing else may use it meanwhile; its cache is flushed.")
@click.option("--measurements", type=_FILE, help="Fit what --save-measurements wrote, instead of measuring.")
@click.option("--save-measurements", type=_FILE, help="Keep every call's times (.json or .json.gz).")
@click.option("--out", type=_FILE, help="Write the fitted parameters (.toml or .json).  [default: print them]")
@click.option("--quick", is_flag=True, help="Small sizes, for tiny models on a CPU.")
@click.option("--hardware", help="What to write down as hardware, where the server does not say.")
@click.option("--api-key", help="The server's key.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides the token ids of the prompts.")
@click.option("--no-fit", is_flag=True, help="Only measure; needs --save-measurements.")
def calibrate(
    url: str | None,
    measurements: Path | None,
    save_measurements: Path | None,
    out: Path | None,
    quick: bool,
    hardware: str | None,
    api_key: str | None,
    seed: int,
    no_fit: bool,
) -> None:
    """Measure an SGLang server and fit the simulated worker's cost model to it.

    A fixed schedule of about three minutes on an H200: single prompts up to 30,000 tokens, uncached and with a cached
    prefix, bursts, decoding with up to 128 requests, prompts that arrive while others decode, and texts.
    """
    if (url is None) == (measurements is None):
        raise click.UsageError("give either --url or --measurements")
    if no_fit and save_measurements is None:
        raise click.UsageError("--no-fit needs --save-measurements")
    with _clear_errors():
        from workers.calibrate.measurement_file import read_measurements

        if measurements is not None:
            measured = read_measurements(measurements)
        else:
            from workers.calibrate import schedule

            sizes = schedule.QUICK if quick else schedule.FULL
            measured = asyncio.run(
                _measure(
                    str(url),
                    api_key,
                    hardware,
                    lambda facts: schedule.schedule(sizes, facts, seed=seed),
                    save_measurements,
                )
            )
        if not no_fit:
            _fit(measured, out)


def _fit(measured: Measurements, out: Path | None) -> None:
    from workers.calibrate.fit import fit
    from workers.calibrate.fit_report import print_fit
    from workers.simulated.cost_file import cost_model_toml, write_cost_model

    fitted = fit(measured)
    print_fit(fitted)
    if out is None:
        sys.stdout.write(cost_model_toml(fitted.cost_model))
    else:
        write_cost_model(fitted.cost_model, out)


async def _measure(
    url: str, api_key: str | None, hardware: str | None, plan: Any, save: Path | None = None
) -> Measurements:
    """Runs what `plan` makes of the server's facts. What has been measured is saved even when a run fails."""
    from workers.calibrate.http_runner import HttpRunner
    from workers.calibrate.measurement_file import Measurements, write_measurements
    from workers.calibrate.measuring import run_all

    async with HttpRunner(url, api_key=api_key) as runner:
        facts = await runner.facts(hardware)
        experiments: Sequence[Experiment] = plan(facts)
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        runs: list[Run] = []
        try:
            with _progress(url, len(experiments)) as progress:
                await run_all(runner, experiments, progress, runs)
        finally:
            measured = Measurements(facts=facts, date=date, runs=tuple(runs))
            if save is not None:
                write_measurements(measured, save)
    return measured


@contextlib.contextmanager
def _progress(title: str, total: int) -> Any:
    """A bar on standard error; one line per experiment where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console,
        disable=not console.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task(title, total=total)
        done = 0

        def tell(experiment: Experiment) -> None:
            nonlocal done
            bar.update(task, completed=done, description=f"{title}  {experiment.name}")
            done += 1
            if not console.is_terminal:
                console.print(f"{title} [{done}/{total}] {experiment.name}", highlight=False)

        yield tell
        bar.update(task, completed=total, description=title)


@contextlib.contextmanager
def _clear_errors() -> Any:
    """What a user can cause becomes one line."""
    from workers.calibrate.http_runner import ServerProblem

    try:
        yield
    except (BadOption, ServerProblem) as error:
        raise click.ClickException(str(error)) from error
    except ModuleNotFoundError as error:
        if error.name not in {"numpy", "aiohttp", "rich"}:
            raise
        raise click.ClickException(f"this needs {error.name}; install it with: pip install {error.name}") from error


@click.command()
@click.option("--real", required=True, help="Server to compare with, or a file of its runs from --save-real.")
@click.option(
    "--simulated",
    help="A simulated server, or a file of its runs.  [default: one started for it, with the real one's limits]",
)
@click.option("--virtual", is_flag=True, help="Simulate on a virtual clock instead: exact, and done in seconds.")
@click.option("--cost-file", type=_FILE, help="Cost model of the simulated server.  [default: the built-in one]")
@click.option("--save-real", type=_FILE, help="Keep the real server's runs (.json or .json.gz).")
@click.option("--save-simulated", type=_FILE, help="Keep the simulated server's runs.")
@click.option("--quick", is_flag=True, help="A small workload, for tiny models on a CPU.")
@click.option("--only-real", is_flag=True, help="Only run the real server; needs --save-real.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@click.option("--hardware", help="What to write down as the real server's hardware.")
@click.option("--api-key", help="The servers' key.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides the workload.")
def compare(
    real: str,
    simulated: str | None,
    virtual: bool,
    cost_file: Path | None,
    save_real: Path | None,
    save_simulated: Path | None,
    quick: bool,
    only_real: bool,
    as_json: bool,
    hardware: str | None,
    api_key: str | None,
    seed: int,
) -> None:
    """Replay one workload on a real and on a simulated server, and print both side by side.

    Several rates and up to 128 requests at a time, prompts up to 30,000 tokens with shared prefixes; about four minutes
    on an H200, and as long again for the simulated server unless --virtual.
    """
    if simulated is not None and (virtual or cost_file is not None):
        raise click.UsageError("--virtual and --cost-file are for a simulation that this command starts")
    if only_real and save_real is None:
        raise click.UsageError("--only-real needs --save-real")
    with _clear_errors():
        from workers.calibrate import workload
        from workers.calibrate.measurement_file import read_measurements, write_measurements

        mix = workload.QUICK_MIX if quick else workload.FULL_MIX
        levels = workload.QUICK_LEVELS if quick else workload.FULL_LEVELS
        theirs = (
            asyncio.run(
                _measure(
                    real, api_key, hardware, lambda facts: workload.workload(mix, levels, facts, seed=seed), save_real
                )
            )
            if _is_url(real)
            else read_measurements(Path(real))
        )
        if only_real:
            return
        ours = _simulate(theirs, simulated, virtual, cost_file, api_key)
        if save_simulated is not None:
            write_measurements(ours, save_simulated)
        _print_comparison(theirs, ours, as_json)


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _simulate(
    theirs: Measurements, simulated: str | None, virtual: bool, cost_file: Path | None, api_key: str | None
) -> Measurements:
    """The runs of the same experiments on a simulation."""
    from workers.calibrate import simulation
    from workers.calibrate.measurement_file import read_measurements
    from workers.simulated.cost_file import read_cost_model
    from workers.simulated.cost_model import H200_QWEN3_8B

    experiments = [run.experiment for run in theirs.runs]
    cost_model = H200_QWEN3_8B if cost_file is None else read_cost_model(cost_file)
    if simulated is not None and not _is_url(simulated):
        return read_measurements(Path(simulated))
    if simulated is not None:
        return asyncio.run(_measure(simulated, api_key, None, lambda facts: experiments))
    if virtual:
        return simulation.virtual(theirs, cost_model)
    with simulation.server(theirs.facts, cost_model) as url:
        return asyncio.run(_measure(url, None, None, lambda facts: experiments))


def _print_comparison(theirs: Measurements, ours: Measurements, as_json: bool) -> None:
    from rich.console import Console

    from workers.calibrate.comparison import compare_runs, comparison_json, comparison_table

    rows = compare_runs(theirs.runs, ours.runs)
    if as_json:
        sys.stdout.write(json.dumps(comparison_json(theirs, ours, rows), indent=1) + "\n")
    else:
        Console(width=None if sys.stdout.isatty() else 160).print(comparison_table(theirs, ours, rows))


commands: list[click.Command] = [calibrate, compare]
