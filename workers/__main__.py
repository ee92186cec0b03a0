"""`python -m workers`: the commands of this package without the rest of Trieway."""

from __future__ import annotations

import click

from workers.cli import commands


def main() -> None:
    """Runs the command that the arguments name."""
    click.Group("workers", commands=commands, help="Run simulated SGLang servers.")()


if __name__ == "__main__":
    main()
