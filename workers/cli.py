"""The commands that this package adds to `trieway`: `simulate`, and `workers` with everything else beside it.

Flags of `simulate` and their help only; what they mean is in simulated/options.py. Not here: calibrate/commands.py.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from workers.calibrate.commands import calibrate, compare
from workers.launch_command import launch
from workers.simulated.errors import BadOption
from workers.simulated.options import DEFAULTS, read_options

_LEVELS = ("debug", "info", "warning", "error")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=int, default=30000, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option("--model", default="simulated", show_default=True, help="Served model name.")
@click.option(
    "--kv-capacity-tokens",
    type=int,
    default=DEFAULTS.kv_capacity_tokens,
    show_default=True,
    help="Size of the KV cache of one rank, in tokens.",
)
@click.option("--page-size", type=int, default=1, show_default=True, help="Tokens in a page of the KV cache.")
@click.option(
    "--max-running-requests",
    type=int,
    default=DEFAULTS.max_running_requests,
    show_default=True,
    help="Most requests decoded together.",
)
@click.option(
    "--chunked-prefill-tokens",
    type=int,
    default=DEFAULTS.chunked_prefill_tokens,
    show_default=True,
    help="Most prompt tokens in one step.",
)
@click.option(
    "--schedule-policy",
    type=click.Choice(["fcfs", "lpm"]),
    default="fcfs",
    show_default=True,
    help="Order of waiting requests: first come first served, or longest prefix match.",
)
@click.option(
    "--overlap/--no-overlap",
    default=DEFAULTS.overlap,
    show_default=True,
    help="Plan each step while the one before it runs, as SGLang does without --disable-overlap-schedule.",
)
@click.option(
    "--context-length",
    type=int,
    default=DEFAULTS.context_length,
    show_default=True,
    help="Longest prompt and answer together, in tokens.",
)
@click.option("--cost-model", type=click.Path(path_type=Path), help="File with the times of the modelled GPU.")
@click.option(
    "--speed",
    type=float,
    default=1.0,
    show_default=True,
    help="How many times faster than the modelled GPU; 10 divides every step's time by ten.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Decides what the model says.")
@click.option(
    "--natural-output-tokens",
    type=int,
    default=DEFAULTS.natural_output_tokens,
    show_default=True,
    help="Mean length of an answer whose request sets no limit.",
)
@click.option(
    "--stop-early/--no-stop-early",
    default=False,
    show_default=True,
    help="Let answers end at their natural length before the limit the request sets.",
)
@click.option(
    "--enable-lora/--no-enable-lora",
    "lora",
    default=False,
    show_default=True,
    help="Accept LoRA adapters; every name is taken for a loaded one.",
)
@click.option("--api-key", help="Key that clients must send.")
@click.option("--admin-api-key", help="Key for /flush_cache and /abort_request.")
@click.option(
    "--enable-cache-report/--no-cache-report",
    "cache_report",
    default=True,
    show_default=True,
    help="Report cached tokens in usage. On here; SGLang needs the flag.",
)
@click.option(
    "--enable-metrics/--no-metrics",
    "metrics",
    default=True,
    show_default=True,
    help="Serve /metrics. On here; SGLang needs the flag.",
)
@click.option("--dp-size", type=int, default=1, show_default=True, help="Data-parallel ranks: engines behind one port.")
@click.option("--kv-events-config", help="JSON, as SGLang's: publish KV events over ZeroMQ.")
@click.option("--faults", type=click.Path(path_type=Path), help="TOML file of faults and their times.")
@click.option(
    "--log-level", type=click.Choice(_LEVELS), default="info", show_default=True, help="Least severe log line."
)
def simulate(log_level: str, **given: object) -> None:
    """Run a simulated SGLang server.

    It answers SGLang's HTTP API with a prefix cache, continuous batching and the times of a modelled GPU; its text is
    made of arbitrary words.
    """
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    import uvloop

    from workers.simulated.server import serve  # only this command needs the server

    try:
        options, faults = read_options(given)
        uvloop.run(serve(options, faults))
    except BadOption as error:
        raise click.UsageError(str(error)) from error


workers = click.Group(
    "workers",
    commands=[simulate, launch, calibrate, compare],
    help="Run SGLang servers, real or simulated, and measure how true the simulated ones are.",
)
commands: list[click.Command] = [simulate, workers]
"""Found by the `trieway` command through the entry point group trieway.commands."""
