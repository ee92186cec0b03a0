"""`python -m workers.calibrate`: calibrate and compare with nothing imported that they do not need."""

from __future__ import annotations

import click

from workers.calibrate.commands import commands


def main() -> None:
    """Runs the command that the arguments name."""
    click.Group("calibrate", commands=commands, help="Measure SGLang servers.")()


if __name__ == "__main__":
    main()
