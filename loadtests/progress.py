"""A progress bar per run on standard error, so that standard output stays clean for tables and JSON.

Called by the commands; told by comparison.py. Nothing is drawn where standard error is no terminal.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from loadtests.measures import RequestResult


class ProgressBars:
    """A comparison.Watcher; a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[errors]} errors"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = TaskID(0)
        self._errors = 0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, name: str, requests: int) -> None:
        self._errors = 0
        self._task = self._bars.add_task(name, total=requests, errors=0)
        if not self._console.is_terminal:
            self._console.print(f"{name}: {requests} requests")

    def result(self, result: RequestResult) -> None:
        self._errors += not result.ok
        self._bars.update(self._task, advance=1, errors=self._errors)
