"""A click command that is imported when it is called, and says which extra to install when that fails.

Called by cli.py. Not here: any command.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

EXTRA_MODULES = {"gevent", "locust", "matplotlib", "numpy"}
"""What the extra `loadtest` brings, by import name."""


class LazyCommand(click.Command):
    """Stands for the command at `target` ("module:name") until it is used; `summary` is its line in help."""

    def __init__(self, name: str, target: str, summary: str) -> None:
        super().__init__(name, help=summary, short_help=summary)
        self._target = target

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the real command. Raises ClickException when a package of the extra is missing."""
        return self.load().make_context(info_name, args, parent, **extra)

    def load(self) -> click.Command:
        """The command itself. Raises ClickException."""
        module, name = self._target.split(":")
        try:
            command: click.Command = vars(import_module(module))[name]
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] not in EXTRA_MODULES:
                raise
            raise missing_extra(error.name) from error
        return command


def missing_extra(module: str) -> click.ClickException:
    """What to say when a package of the extra is not installed."""
    return click.ClickException(f"this needs {module}; install it with: pip install 'trieway[loadtest]'")
