"""`python -m loadtests`: the commands of this package without the rest of Trieway."""

from __future__ import annotations

import click

from loadtests.cli import commands


def main() -> None:
    """Runs the command that the arguments name."""
    click.Group("loadtests", commands=commands, help="Load tests, trace replay and reports.")()


if __name__ == "__main__":
    main()
