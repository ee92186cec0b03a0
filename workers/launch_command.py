"""`trieway workers launch`: options in, a checked plan out, and then the servers.

Called by cli. Not here: what is checked (launch_checks), how it runs (launch).
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import click

from workers.launch_checks import look_at_machine, missing
from workers.placement import PlacementError, Wanted, place
from workers.sglang.command import BadExtraFlag, check_extra
from workers.sglang.patience import Patience
from workers.topology import unknown_topology

PORT = click.IntRange(1, 65_535)
DEFAULTS = Patience()


def read_gpus(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """`0-3,6` as numbers. Raises BadParameter."""
    if text is None:
        return None
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or (dash and int(last) < int(first)):
            raise click.BadParameter(f"{text!r} is no list of GPUs like 0-3 or 0,2,4-7.")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


@click.command()
@click.option("--model", required=True, help="Model to serve: a folder, or a name on the Hugging Face hub.")
@click.option("--gpus", callback=read_gpus, help="GPUs to use, as 0-3 or 0,2,4-7.  [default: all]")
@click.option("--tp", "tp_size", default=1, show_default=True, type=click.IntRange(1), help="GPUs of one replica.")
@click.option("--dp", "dp_size", default=1, show_default=True, type=click.IntRange(1), help="Replicas behind one port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address the servers listen on.")
@click.option("--port", default=30_000, show_default=True, type=PORT, help="Port of the first; the others follow.")
@click.option("--kv-events-port", default=5557, show_default=True, type=PORT, help="First port of their KV events.")
@click.option("--no-kv-events", is_flag=True, help="Publish no KV events.")
@click.option("--across-islands", is_flag=True, help="Let GPUs share a replica that no NVLink joins.")
@click.option("--python", default=sys.executable, envvar="TRIEWAY_SGLANG_PYTHON", help="Python that has SGLang.  "
              "[env: TRIEWAY_SGLANG_PYTHON; default: this one]")  # fmt: skip
@click.option("--log-dir", type=click.Path(file_okay=False, path_type=Path), help="Folder of the servers' logs.  "
              "[default: a new one under the system's temporary folder]")  # fmt: skip
@click.option("--ready-within", "ready_within_s", default=DEFAULTS.ready_within_s, show_default=True,
              type=click.FloatRange(1), help="Seconds a server may take to start.")  # fmt: skip
@click.option("--restarts", default=DEFAULTS.restarts, show_default=True, type=click.IntRange(0),
              help="Restarts in a row after which a server is given up.")  # fmt: skip
@click.option("--stop-within", "stop_within_s", default=DEFAULTS.stop_within_s, show_default=True,
              type=click.FloatRange(0), help="Seconds that running requests get when it stops.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print the plan, the commands and what is missing; start nothing.")
@click.argument("extra", nargs=-1, type=click.UNPROCESSED)
def launch(
    *, python: str, log_dir: Path | None, ready_within_s: float, restarts: int, stop_within_s: float, dry_run: bool,
    no_kv_events: bool, kv_events_port: int, extra: tuple[str, ...], **placement: object,
) -> None:  # fmt: skip
    """Start SGLang servers on this machine's GPUs, one per GPU unless told otherwise, and keep them up.

    What follows `--` goes to SGLang as it is.
    """
    from workers.launch import launch as run_plan  # these bring httpx and rich, which only this command needs
    from workers.launch_console import Console

    wanted = Wanted(**placement, kv_events_port=None if no_kv_events else kv_events_port)  # type: ignore[arg-type]
    machine = look_at_machine(os.environ.get("CUDA_VISIBLE_DEVICES"))
    topology = machine.topology
    if dry_run and not topology.gpus and wanted.gpus is not None:
        topology = unknown_topology(wanted.gpus)  # a plan for another machine
    if not topology.gpus:
        raise click.ClickException(" ".join([*machine.problems, "(--gpus 0-3 --dry-run shows a plan all the same.)"]))
    console = Console()
    try:
        check_extra(extra)
        plan = place(wanted, topology)
    except (PlacementError, BadExtraFlag) as error:
        raise click.ClickException(str(error)) from error
    console.plan(plan, machine, extra, python)
    problems = missing(plan, machine, python)
    if problems:
        console.error("\nMissing here:")
        for problem in problems:
            console.error(f"  {problem}")
    if dry_run:
        return
    if problems:
        sys.exit(1)
    logs = log_dir or Path(tempfile.mkdtemp(prefix="trieway-sglang-"))
    logs.mkdir(parents=True, exist_ok=True)
    patience = Patience(ready_within_s=ready_within_s, restarts=restarts, stop_within_s=stop_within_s)
    sys.exit(asyncio.run(run_plan(plan, extra=extra, python=python, logs=logs, patience=patience, console=console)))
