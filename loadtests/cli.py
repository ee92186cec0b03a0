"""The commands that this package adds to `trieway`: `loadtest`, `replay`, `replay-sweep` and `demo`.

Names and one-line helps only; what a command does is imported when it is called, so that `trieway --help` stays quick
and works without the loadtest extra.
"""

from __future__ import annotations

import click

from loadtests.lazy_command import LazyCommand

demo = click.Group(
    "demo",
    commands=[LazyCommand("radix", "loadtests.demo_radix_command:radix", "One long document, several questions.")],
    help="See for yourself what prefix caching and cache-aware routing do.",
    short_help="See what prefix caching and routing do.",
)
commands: list[click.Command] = [
    LazyCommand("loadtest", "loadtests.loadtest_command:loadtest", "Send traffic and compare policies side by side."),
    LazyCommand("replay", "loadtests.replay_command:replay_command", "Replay a trace in virtual time, no servers."),
    LazyCommand("replay-sweep", "loadtests.replay_sweep_command:replay_sweep", "Replay many cells and compare them."),
    demo,
]
"""Found by the `trieway` command through the entry point group trieway.commands."""
