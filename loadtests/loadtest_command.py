"""`trieway loadtest`: traffic from a trace or a workload, through policies on a fleet of its own or to an endpoint.

Flags in, table out. `trieway loadtest FILE.toml` runs a scenario (scenario_command.py). Not here: the recipe
(comparison.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console

from loadtests.comparison import Run, Traffic, compare, run_against
from loadtests.drive import Pace
from loadtests.endpoint import TargetError
from loadtests.fleet import FleetPlan
from loadtests.interrupt import Interrupted, run_until_interrupted
from loadtests.lazy_command import LazyCommand
from loadtests.processes import ChildExited
from loadtests.progress import ProgressBars
from loadtests.scenario import SHIPPED
from loadtests.table import as_json, comparison_table, remarks, write_csv
from loadtests.trace_file import TraceError
from loadtests.traces import Trace, read_trace
from loadtests.workloads import WORKLOADS, Workload, generate
from router.policies import POLICIES

_Command = TypeVar("_Command", bound=Callable[..., object])

EXIT_INTERRUPTED = 130  # as shells report a program ended by Ctrl-C


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The flags that trace and workload share."""

    policy: tuple[str, ...]
    workers: int
    kv_capacity_tokens: int | None
    endpoint: str | None
    model: str | None
    api_key: str | None
    rate: float
    speed: float
    seed: int
    max_in_flight: int
    timeout_s: float
    json: bool
    csv: Path | None


def _policy(_context: click.Context, _parameter: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in POLICIES:
            near = get_close_matches(name, POLICIES, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.BadParameter(f"there is no policy {name!r}.{hint} Policies: {', '.join(POLICIES)}.")
    return names


_TARGET_OPTIONS = (
    click.option("--policy", multiple=True, callback=_policy, metavar="NAME",
                 help="Policy to run; repeat to compare.  [default: round_robin, expected_ttft]"),
    click.option("--workers", type=click.IntRange(1, 64), default=4, show_default=True,
                 help="Simulated workers to start."),
    click.option("--kv-capacity-tokens", type=click.IntRange(1), help="KV cache of each simulated worker, in tokens."),
    click.option("--endpoint", metavar="URL", help="Drive this running server instead of starting a fleet."),
    click.option("--model", help="Model to ask for.  [default: the first that the server lists]"),
    click.option("--api-key", envvar="OPENAI_API_KEY", help="Key to send to --endpoint."),
    click.option("--rate", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
                 help="Sessions arrive this many times as often."),
    click.option("--speed", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
                 help="Run trace and simulated workers this many times faster; times are given in the trace's time."),
    click.option("--seed", type=int, default=0, show_default=True, help="Decides generated texts and arrivals."),
    click.option("--max-in-flight", type=click.IntRange(1), default=512, show_default=True,
                 help="Most requests sent at once."),
    click.option("--timeout-s", type=click.FloatRange(0, min_open=True), default=600.0, show_default=True,
                 help="Longest wait for one answer, in seconds."),
    click.option("--json", is_flag=True, help="Print JSON instead of a table."),
    click.option("--csv", type=click.Path(path_type=Path, dir_okay=False), help="Write one row per request here."),
)  # fmt: skip


def _with_target(command: _Command) -> _Command:
    for option in reversed(_TARGET_OPTIONS):
        command = option(command)
    return command


class _Scenarios(click.Group):
    """A group in which an argument that is no command is a scenario: a TOML file, or one that comes with Trieway."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        shipped = sorted(path.stem for path in SHIPPED.glob("*.toml"))
        if args and args[0] not in self.commands and (args[0].endswith(".toml") or args[0] in shipped):
            args = ["run", *args]
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            near = get_close_matches(args[0], [*self.commands, *shipped], n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(
                f"there is no command and no scenario {args[0]!r}.{hint} Commands: {', '.join(sorted(self.commands))}; "
                f"scenarios: {', '.join(shipped)}, or a file that ends in .toml."
            )
        return super().resolve_command(ctx, args)


@click.group(cls=_Scenarios)
def loadtest() -> None:
    """Send traffic and compare policies side by side.

    For each policy a router is started anew before the same simulated workers, with empty caches. `trieway loadtest
    SCENARIO` is short for `trieway loadtest run SCENARIO`.
    """


for _name, _summary in (
    ("run", "Run a scenario and write one report."),
    ("goodput", "Find each policy's highest rate within an objective."),
    ("scenarios", "List the scenarios that come with Trieway."),
):
    loadtest.add_command(LazyCommand(_name, f"loadtests.scenario_command:{_name}", _summary))
loadtest.add_command(
    LazyCommand("export", "loadtests.export_command:export", "Write a workload's calls for sglang.bench_serving.")
)


@loadtest.command()
@click.argument("trace", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--limit", type=click.IntRange(1), help="Use only the first so many requests.")
@click.option("--tools", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Tool lists that a chat trace names.  [default: NAME_tools.json beside NAME_*.jsonl]")  # fmt: skip
@_with_target
def trace(trace: Path, limit: int | None, tools: Path | None, **target: Any) -> None:
    """Replay TRACE with its own arrival times: chat calls or Mooncake blocks (.jsonl), or Azure arrivals (.csv); each
    may be gzipped.
    """
    try:
        requests = read_trace(trace, limit=limit, tools=tools)
    except TraceError as error:
        raise click.ClickException(str(error)) from error
    _run(requests, trace.name, Target(**target))


@loadtest.command()
@click.argument("name", type=click.Choice(sorted(WORKLOADS)))
@click.option("--sessions", type=click.IntRange(1), default=100, show_default=True, help="Sessions to send.")
@click.option("--sessions-per-s", type=click.FloatRange(0, min_open=True), default=4.0, show_default=True,
              help="Sessions that start per second, in a Poisson process.")  # fmt: skip
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change one size of the workload.")
@_with_target
def workload(name: str, sessions: int, sessions_per_s: float, settings: Sequence[str], **target: Any) -> None:
    """Generate traffic of one kind: no trace needed."""
    chosen = Target(**target)
    made = chosen_workload(name, settings, chosen.seed)
    _run(generate(made, sessions=sessions, sessions_per_s=sessions_per_s), name, chosen)


def chosen_workload(name: str, settings: Sequence[str], seed: int) -> Workload:
    """A workload with the sizes that `--set` gives. Raises BadParameter."""
    kind: Any = WORKLOADS[name]  # a dataclass; its fields are what --set may name
    keys = [field.name for field in dataclasses.fields(kind) if field.name != "seed"]
    values: dict[str, object] = {"seed": seed}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in keys:
            near = get_close_matches(key, keys, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.BadParameter(f"{name} has no size {key!r}.{hint} It has: {', '.join(keys)}.")
        values[key] = value
    try:
        workload: Workload = msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise click.BadParameter(f"--set {name}: {error}") from error
    return workload


def _run(requests: Trace, source: str, target: Target) -> None:
    if target.endpoint is not None and (target.policy or target.speed != 1):
        raise click.UsageError("--endpoint drives what runs already: it goes with neither --policy nor --speed")
    pace = Pace(rate=target.rate, speed=target.speed, max_in_flight=target.max_in_flight)
    traffic = Traffic(
        requests=requests,
        pace=pace,
        seed=target.seed,
        model=target.model,
        api_key=target.api_key if target.endpoint is not None else None,
        timeout_s=target.timeout_s,
    )
    runs: list[Run] = []
    errors = Console(stderr=True)
    interrupted = False
    try:
        with ProgressBars(errors) as bars:
            run_until_interrupted(_work(traffic, target, bars, runs))
    except Interrupted:
        interrupted = True
    except (ChildExited, TargetError) as error:
        raise click.ClickException(str(error)) from error
    finally:
        _report(runs, source, target)
    if interrupted:
        errors.print("Interrupted; everything that was started has been stopped.")
        raise SystemExit(EXIT_INTERRUPTED)


async def _work(traffic: Traffic, target: Target, bars: ProgressBars, runs: list[Run]) -> None:
    if target.endpoint is not None:
        url = target.endpoint.rstrip("/").removesuffix("/v1")
        await run_against(traffic, url, url, bars, runs)
        return
    options = () if target.kv_capacity_tokens is None else ("--kv-capacity-tokens", str(target.kv_capacity_tokens))
    plan = FleetPlan(workers=target.workers, speed=target.speed, seed=target.seed, worker_options=options)
    await compare(traffic, target.policy or ("round_robin", "expected_ttft"), plan, bars, runs)


def _report(runs: Sequence[Run], source: str, target: Target) -> None:
    if target.csv is not None:
        write_csv(target.csv, runs)
    if target.json:
        about = {
            name: value for name, value in dataclasses.asdict(target).items() if name not in ("json", "csv", "api_key")
        }
        click.echo(as_json(runs, {"source": source, **about}))
    elif runs:
        console = Console()
        if not console.is_terminal:
            console = Console(width=180)
        fleet = target.endpoint or f"{target.workers} simulated workers"
        console.print(comparison_table(runs, f"{source}: {fleet}, rate x{target.rate:g}, speed x{target.speed:g}"))
        for remark in remarks(runs):
            console.print(remark, markup=False, soft_wrap=True)
