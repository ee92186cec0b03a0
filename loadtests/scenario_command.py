"""`trieway loadtest run` and `goodput`: a scenario through every policy, to tables, one HTML report, CSV and JSON.

Flags and files only. Not here: running (scenario_run.py), searching (goodput_run.py), figures (scenario_outcome.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from loadtests.conditions import conditions
from loadtests.endpoint import TargetError
from loadtests.goodput import Goodput
from loadtests.goodput_run import search_goodput
from loadtests.interrupt import Interrupted, run_until_interrupted
from loadtests.processes import ChildExited
from loadtests.progress import ProgressBars
from loadtests.replay_policy import PolicyError, parsed
from loadtests.report import html
from loadtests.scenario import SHIPPED, Scenario, ScenarioError, find_scenario, read_scenario
from loadtests.scenario_outcome import Outcome, as_json, outcome, write_csv
from loadtests.scenario_run import Driver, Live, Pass, Virtual, run_scenario
from loadtests.scenario_spec import FleetSpec
from loadtests.scenario_table import differences_table, figures_table, goodput_table, remarks

_Command = TypeVar("_Command", bound=Callable[..., object])

EXIT_INTERRUPTED = 130  # as shells report a program ended by Ctrl-C


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The flags that `run` and `goodput` share. What is None or empty stays as the scenario has it."""

    scenario: str
    virtual: bool
    policy: tuple[str, ...]
    repetitions: int | None
    sessions: int | None
    limit: int | None
    rate: float | None
    workers: int | None
    worker_url: tuple[str, ...]
    endpoint: tuple[str, ...]
    seed: int | None
    out: Path | None
    json: bool


_OPTIONS = (
    click.argument("scenario"),
    click.option("--virtual", is_flag=True, help="In virtual time, without servers: exact, repeatable, quick."),
    click.option("--policy", multiple=True, metavar="NAME[:PARAM=VALUE,...]",
                 help="Instead of the scenario's policies; repeat to compare with the first."),
    click.option("--repetitions", type=click.IntRange(1), help="How often each policy runs."),
    click.option("--sessions", type=click.IntRange(1), help="Sessions of a generated workload."),
    click.option("--limit", type=click.IntRange(1), help="Use only the first so many requests."),
    click.option("--rate", type=click.FloatRange(0, min_open=True), help="Sessions arrive this many times as often."),
    click.option("--workers", type=click.IntRange(1, 64), help="Simulated workers to start."),
    click.option("--worker-url", multiple=True, metavar="URL", help="A worker that runs already; repeat for each."),
    click.option("--endpoint", multiple=True, metavar="NAME=URL",
                 help="A router that runs already, to compare instead of policies; repeat for each."),
    click.option("--seed", type=int, help="Decides texts and arrivals."),
    click.option("--out", type=click.Path(path_type=Path, file_okay=False),
                 help="Folder for report.html, requests.csv and report.json.  [default: reports/NAME-TIME]"),
    click.option("--json", is_flag=True, help="Print the JSON instead of tables."),
)  # fmt: skip


def _with_options(command: _Command) -> _Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@_with_options
@click.option("--goodput", is_flag=True, help="Search each policy's highest rate too.")
def run(goodput: bool, **asked: Any) -> None:
    """Run SCENARIO, a TOML file or the name of one that comes with Trieway, and write a report.

    Every policy gets the same traffic, over empty caches, in an order that alternates over the repetitions.
    """
    _do(Asked(**asked), compare=True, search=goodput)


@click.command()
@_with_options
def goodput(**asked: Any) -> None:
    """Find the highest rate at which enough requests of SCENARIO meet its objective, for each policy."""
    _do(Asked(**asked), compare=False, search=True)


@click.command()
def scenarios() -> None:
    """List the scenarios that come with Trieway."""
    for path in sorted(SHIPPED.glob("*.toml")):
        click.echo(f"{path.stem:<20} {read_scenario(path).title}")


def _do(asked: Asked, *, compare: bool, search: bool) -> None:
    errors = Console(stderr=True)
    passes: list[Pass] = []
    found: list[Goodput] = []
    interrupted, failed = False, ""
    try:
        scenario = _changed(read_scenario(find_scenario(asked.scenario)), asked)
        if search and scenario.goodput_objective is None:
            raise ScenarioError(f"{scenario.name}: a goodput search needs an objective; add [objectives.NAME]")
        under = conditions(scenario, virtual=asked.virtual)
        if compare and not asked.virtual:
            errors.print(_announced(scenario), soft_wrap=True, highlight=False)
        with ProgressBars(errors) as bars:
            run_until_interrupted(_work(scenario, asked.virtual, compare, search, bars, passes, found))
    except Interrupted:
        interrupted = True
    except (ScenarioError, PolicyError, ChildExited, TargetError) as error:
        failed = str(error)
    if passes or found:
        _write(outcome(scenario, under, passes, found), asked, errors)
    if failed:
        raise click.ClickException(failed)
    if interrupted:
        errors.print("Interrupted; everything that was started has been stopped.")
        raise SystemExit(EXIT_INTERRUPTED)


def _announced(scenario: Scenario) -> str:
    """What is about to run, and how long its arrivals alone take."""
    arrivals = [request.arrival_s for request in scenario.traffic(0)]
    span_s = (max(arrivals) - min(arrivals)) / scenario.workload.rate / scenario.fleet.speed
    runs = len(scenario.arms) * scenario.repetitions
    arms = "endpoints" if scenario.fleet.endpoints else "policies"
    return (
        f"{scenario.name}: {len(scenario.arms)} {arms} x {scenario.repetitions} repetitions of {len(arrivals)} "
        f"requests; arrivals alone take {runs * span_s:.0f} s, and pauses, answers and starts come on top"
    )


async def _work(
    scenario: Scenario,
    virtual: bool,
    compare: bool,
    search: bool,
    bars: ProgressBars,
    passes: list[Pass],
    found: list[Goodput],
) -> None:
    async with _driver(scenario, virtual=virtual) as driver:
        if compare:
            await run_scenario(scenario, driver, bars, passes)
        if search and scenario.goodput_objective is not None:
            await search_goodput(scenario, scenario.goodput_objective[1], driver, bars, found)


@asynccontextmanager
async def _driver(scenario: Scenario, *, virtual: bool) -> AsyncIterator[Driver]:
    if virtual:
        yield Virtual(scenario)
        return
    async with Live.running(scenario) as live:
        yield live


def _changed(scenario: Scenario, asked: Asked) -> Scenario:
    """The scenario with what the flags say. Raises ScenarioError or PolicyError."""
    for policy in asked.policy:
        parsed(policy)
    fleet, workload = scenario.fleet, scenario.workload
    if asked.worker_url or asked.endpoint:
        fleet = _on_real_servers(fleet, asked)
    for name in ("sessions", "limit", "rate"):
        value = getattr(asked, name)
        workload = workload if value is None else replace(workload, **{name: value})
    return replace(
        scenario,
        fleet=fleet if asked.workers is None else replace(fleet, workers=asked.workers),
        workload=workload,
        policies=asked.policy or scenario.policies,
        repetitions=asked.repetitions or scenario.repetitions,
        seed=scenario.seed if asked.seed is None else asked.seed,
    )


def _endpoints(given: tuple[str, ...]) -> dict[str, str]:
    pairs = [one.partition("=") for one in given]
    for name, _, url in pairs:
        if not name or not url:
            raise ScenarioError("write --endpoint as NAME=URL, for example --endpoint mine=http://127.0.0.1:8080")
    return {name: url for name, _, url in pairs}


def _on_real_servers(fleet: FleetSpec, asked: Asked) -> FleetSpec:
    """The fleet with the servers that --worker-url and --endpoint name. Raises ScenarioError."""
    endpoints = _endpoints(asked.endpoint)
    try:
        return replace(fleet, speed=1.0, kv_capacity_tokens=None, worker_urls=asked.worker_url, endpoints=endpoints)
    except ValueError as error:
        raise ScenarioError(f"[fleet]: {error}") from error


def _write(result: Outcome, asked: Asked, errors: Console) -> None:
    """The files, then tables or JSON. Raises ClickException when the folder cannot be written."""
    stamp = datetime.now(tz=UTC).strftime("%Y%m%d-%H%M%S")
    folder = asked.out or Path("reports") / f"{result.scenario.name}-{stamp}"
    data = as_json(result)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_bytes(data)
        write_csv(folder / "requests.csv", result.passes)
        (folder / "report.html").write_text(html(result))
    except OSError as error:
        raise click.ClickException(f"cannot write the report to {folder}: {error.strerror}") from error
    if asked.json:
        click.echo(data)
    else:
        _print(result)
    errors.print(f"Report: {folder / 'report.html'}", soft_wrap=True, highlight=False)


def _print(result: Outcome) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    if result.passes:
        console.print(figures_table(result))
    if result.changes:
        console.print(differences_table(result))
    if result.goodput:
        console.print(goodput_table(result))
    for remark in remarks(result):
        console.print(remark, markup=False, soft_wrap=True)
