"""The commands that read a configuration: serve, policies and check-config, with a flag for every field of it.

Flags are derived from the configuration's fields; each has an environment variable TRIEWAY_<FLAG>. Imports the whole
router, so cli imports this only when one of them is called.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from router.app import create_app
from router.compiled import how_it_runs
from router.config import RouterConfig, knobs, load_config
from router.errors import RouterError
from router.obstacle import obstacle
from router.policies import POLICIES

log = logging.getLogger(__name__)
Overrides = dict[tuple[str, ...], Any]


def config_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --config and one option per configuration field to a click command."""
    for knob in reversed(list(knobs())):
        many = isinstance(knob.default, tuple)
        default = ", ".join(map(str, knob.default)) if many else knob.default
        shown = "" if default in (None, "") else f"  [default: {default}]"
        command = click.option(
            knob.flag,
            "__".join(knob.path),
            multiple=many,
            default=None,
            envvar="TRIEWAY_" + knob.flag[2:].replace("-", "_").upper(),
            help=knob.help + shown,
        )(command)
    return click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file of settings")(
        command
    )


def overrides_of(given: dict[str, Any]) -> Overrides:
    """What flags and environment set, by path."""
    return {
        tuple(name.split("__")): list(value) if isinstance(value, tuple) else value
        for name, value in given.items()
        if value is not None and value != ()
    }


def read_config(config_file: Path | None, given: dict[str, Any]) -> RouterConfig:
    """The configuration from file, environment and flags; a ConfigError becomes a one-line exit."""
    try:
        return load_config(config_file, overrides_of(given))
    except RouterError as error:
        raise click.ClickException(error.message) from error


def check_port(host: str, port: int) -> None:
    """Raises ClickException for an address that cannot be listened on: uvicorn says it in six lines, with no advice."""
    error = obstacle(host, port)
    if error is not None:
        why = f"Cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}."
        raise click.ClickException(f"{why} Choose another --port or --host.") from error


@click.command()
@config_options
def serve(config_file: Path | None, **given: Any) -> None:
    """Run the router in front of the given workers."""
    from router.admission.door import Door
    from router.serving import run_server, server_of
    from router.state.reload import ConfigSource
    from router.telemetry.logs import setup_logging

    config = read_config(config_file, given)
    setup_logging(config.server.log_level, config.server.log_format)
    log.info("what every request runs is %s", how_it_runs())
    check_port(config.server.host, config.server.port)
    if config.server.processes > 1:
        sys.exit(_serve_with_processes(config, config_file, given))
    door = Door()
    source = ConfigSource(read=lambda: load_config(config_file, overrides_of(given)), file=config_file)
    try:
        server = server_of(config, create_app(config, door=door, source=source), door)
    except RouterError as error:
        raise click.ClickException(error.message) from error
    if not run_server(server, server.config.bind_socket()):
        sys.exit(3)  # as uvicorn itself does


def _serve_with_processes(config: RouterConfig, config_file: Path | None, given: dict[str, Any]) -> int:
    from router.processes.parent import as_hello, run_processes

    hello = as_hello(config_file, overrides_of(given), tls=bool(config.security.tls_cert_file))
    server = config.server
    grace_s = server.shutdown_delay_s + server.shutdown_grace_s
    try:
        return run_processes(server.host, server.port, server.processes, hello, grace_s=grace_s)
    except OSError as error:
        raise click.ClickException(f"Cannot listen on {server.host}:{server.port}: {error.strerror}.") from error


@click.command()
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def policies(as_json: bool) -> None:
    """List the routing policies and their parameters."""
    parameters = {
        name: {
            knob.path[2]: {"default": knob.default, "help": knob.help} for knob in knobs() if knob.path[1:2] == (name,)
        }
        for name in POLICIES
    }
    if as_json:
        rows = {name: {"summary": row.summary, "parameters": parameters[name]} for name, row in POLICIES.items()}
        click.echo(json.dumps(rows, indent=2))
        return
    for name, row in POLICIES.items():
        click.echo(f"{name:16} {row.summary}")
        for key, about in parameters[name].items():
            click.echo(f"{'':18}{key} = {about['default']}  ({about['help']})")


@click.command("check-config")
@config_options
def check_config(config_file: Path | None, **given: Any) -> None:
    """Check a configuration without starting anything."""
    config = read_config(config_file, given)
    try:
        create_app(config)
    except RouterError as error:
        raise click.ClickException(error.message) from error
    click.echo(f"ok: policy {config.policy}, {len(config.worker)} workers")
