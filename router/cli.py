"""The command `trieway`: the router's own commands, and what the other packages contribute.

Names and one-line helps only; what a command needs is imported when it is called, so that a command that serves nothing
does not wait for the web framework. The sibling packages' commands are found through entry points, so that the packages
stay strangers. Not here: serve, policies and check-config (config_commands).
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import click


class LazyCommand(click.Command):
    """Stands for the command at `target` ("module:name") until it is used; `summary` is its line in help."""

    def __init__(self, name: str, target: str, summary: str) -> None:
        super().__init__(name, help=summary, short_help=summary)
        self._target = target

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the real command."""
        module, name = self._target.split(":")
        command: click.Command = vars(import_module(module))[name]
        return command.make_context(info_name, args, parent, **extra)


@click.command()
@click.option("--workers", default=4, show_default=True, type=click.IntRange(1, 64), help="simulated workers to start")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(1, 65_535), help="port of the router")
@click.option("--worker-port", default=30_000, show_default=True, help="port of the first worker; the rest follow")
@click.option("--policy", default="expected_ttft", show_default=True, help="routing policy")
def up(workers: int, port: int, worker_port: int, policy: str) -> None:
    """Start simulated workers and the router, and stop them all on Ctrl-C."""
    from router.up import run_up

    sys.exit(run_up(workers=workers, port=port, worker_port=worker_port, policy=policy))


commands: list[click.Command] = [
    LazyCommand("serve", "router.config_commands:serve", "Run the router in front of the given workers."),
    up,
    LazyCommand("policies", "router.config_commands:policies", "List the routing policies and their parameters."),
    LazyCommand(
        "check-config", "router.config_commands:check_config", "Check a configuration without starting anything."
    ),
    LazyCommand("explain", "router.remote:explain", "Show why a request went where it went, and what came of it."),
    LazyCommand("experiment", "router.remote:experiment", "Compare routing policies on live traffic."),
    LazyCommand("keys", "router.security.command:keys", "Make API keys for clients and admins."),
]


@click.group()
@click.version_option(package_name="trieway", prog_name="trieway")
def cli() -> None:
    """Trieway: a cache-aware load-balancing router for SGLang."""


def main() -> None:
    """Entry point of `trieway`: gathers every package's commands and runs the one asked for."""
    for point in entry_points(group="trieway.commands"):
        for command in point.load():
            cli.add_command(command)
    cli()


if __name__ == "__main__":
    main()
