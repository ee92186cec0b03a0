"""What `trieway workers launch` prints: the plan, how the starts go on, what crashed, how to go on from here.

Called by launch and launch_command. Measures and decides nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import rich.console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from workers.launch_checks import Machine
from workers.placement import Plan
from workers.sglang.command import shell_line
from workers.sglang.process import ServerProcess, State

_REPORT_EVERY_S = 30.0
_STYLES = {State.READY: "green", State.CRASHED: "yellow", State.FAILED: "red"}
_LINE_CHARACTERS = 100


class Console:
    """Prints to standard output, errors to standard error. Shows a live table while servers start, if it can."""

    def __init__(self) -> None:
        self._out = rich.console.Console(highlight=False)
        self._err = rich.console.Console(stderr=True, highlight=False)
        self._live = False

    def say(self, text: str) -> None:
        self._out.print(text, markup=False, soft_wrap=True)

    def error(self, text: str) -> None:
        self._err.print(text, markup=False, soft_wrap=True)

    def plan(self, plan: Plan, machine: Machine, extra: Sequence[str], python: str) -> None:
        """The servers, the remarks and the commands."""
        first = plan.workers[0]
        self.say(f"{_servers(len(plan.workers))} of {first.model}, tp {first.tp_size}, dp {first.dp_size}:")
        table = Table(box=None, pad_edge=False)
        for title in ("server", "GPUs", "port", "KV events"):
            table.add_column(title)
        for spec in plan.workers:
            names = sorted({machine.gpus[gpu].name for gpu in spec.gpus if gpu in machine.gpus})
            events = "-" if spec.kv_events_port is None else ", ".join(map(str, spec.ports[1:]))
            gpus = f"{','.join(map(str, spec.gpus))} {' '.join(names)}"
            table.add_row(spec.name, escape(gpus), str(spec.port), events)
        self._out.print(table)
        for remark in plan.remarks:
            self.say(remark)
        self.say("\nCommands:")
        for spec in plan.workers:
            self.say(f"  {shell_line(spec, extra, python)}")

    def on_state(self, server: ServerProcess, remark: str) -> None:
        """A line for each change that the live table does not show."""
        if server.state is State.CRASHED:
            self.error(remark)
        elif remark and not self._live:
            self.say(f"{server.name}: {remark}")

    @contextmanager
    def progress(self, servers: Sequence[ServerProcess]) -> Iterator[None]:
        """On a terminal: a table that follows each server's log until the block is left."""
        self.say(f"\nStarting; the logs are in {servers[0].log.parent}. Loading a model takes minutes.")
        begun_s = time.monotonic()
        if not self._out.is_terminal:
            with self._every(_REPORT_EVERY_S, lambda: self._report(servers, begun_s)):
                yield
            return
        self._live = True
        try:
            with Live(get_renderable=lambda: _progress(servers, begun_s), console=self._out, refresh_per_second=2):
                yield
        finally:
            self._live = False

    def _report(self, servers: Sequence[ServerProcess], begun_s: float) -> None:
        """A line for each server that still starts, where no live table can be shown."""
        for server in servers:
            if server.state is State.STARTING:
                line = server.last_line()[:_LINE_CHARACTERS]
                self.say(f"{server.name}: starting since {time.monotonic() - begun_s:.0f} s; it logged: {line}")

    @staticmethod
    @contextmanager
    def _every(period_s: float, act: Callable[[], None]) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None

        def again() -> None:
            nonlocal timer
            act()
            timer = loop.call_later(period_s, again)

        timer = loop.call_later(period_s, again)
        try:
            yield
        finally:
            timer.cancel()

    def all_ready(self, plan: Plan) -> None:
        """What runs, and the router's command that uses it."""
        workers = " ".join(f"--worker {spec.name}={spec.url}" for spec in plan.workers)
        self.say(
            f"\nReady: {_servers(len(plan.workers))}. Put a router before them:\n\n  trieway serve {workers}\n\n"
            "Ctrl-C stops them."
        )


def _servers(count: int) -> str:
    return f"{count} SGLang server{'s' * (count > 1)}"


def _progress(servers: Sequence[ServerProcess], begun_s: float) -> Table:
    table = Table(box=None, pad_edge=False)
    for title, width in (("server", max(len(each.name) for each in servers)), ("state", 8), ("seconds", 7)):
        table.add_column(title, no_wrap=True, min_width=width)
    table.add_column("last line of its log", no_wrap=True)
    for server in servers:
        seconds = server.ready_after_s if server.ready_after_s is not None else time.monotonic() - begun_s
        style = _STYLES.get(server.state, "")
        line = "" if server.state is State.READY else server.last_line()[:_LINE_CHARACTERS]
        table.add_row(server.name, f"[{style}]{server.state.value}[/]" if style else server.state.value,
                      f"{seconds:.0f}", escape(line))  # fmt: skip
    return table
