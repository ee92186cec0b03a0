"""Runs a plan: starts its servers together, waits until all are ready, keeps them up, stops them in order.

Called by launch_command. Not here: checks (launch_checks), one server's life (sglang.process), words for the terminal
(launch_console).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine, Sequence
from pathlib import Path

import httpx

from workers.launch_console import Console
from workers.placement import Plan
from workers.sglang.command import sglang_argv, sglang_environment
from workers.sglang.patience import Patience
from workers.sglang.process import ServerFailed, ServerProcess


async def launch(
    plan: Plan, *, extra: Sequence[str], python: str, logs: Path, patience: Patience, console: Console
) -> int:
    """Until Ctrl-C or SIGTERM, or until no server is left; the exit status. A first start that fails ends all of it.

    A second signal kills what still stops.
    """
    async with httpx.AsyncClient(trust_env=False) as client:
        servers = [
            ServerProcess(
                name=spec.name,
                argv=sglang_argv(spec, extra, python),
                environment=sglang_environment(spec, os.environ),
                url=spec.url,
                log=logs / f"{spec.name}.log",
                patience=patience,
                client=client,
                on_state=console.on_state,
            )
            for spec in plan.workers
        ]
        stopping = _on_signals(servers)
        try:
            status = await _unless(stopping, _work(plan, servers, console))
        finally:
            await _stop(servers, console)
        return status


async def _unless(stopping: asyncio.Event, work: Coroutine[None, None, int]) -> int:
    """The result of `work`, or 0 when `stopping` is set first."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        stop = group.create_task(stopping.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        stop.cancel()
    return 0 if task.cancelled() else task.result()


def _on_signals(servers: Sequence[ServerProcess]) -> asyncio.Event:
    """Set by the first Ctrl-C or SIGTERM; the second kills."""
    stopping = asyncio.Event()

    def on_signal() -> None:
        if stopping.is_set():
            for server in servers:
                server.kill()
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    return stopping


async def _work(plan: Plan, servers: Sequence[ServerProcess], console: Console) -> int:
    with console.progress(servers):
        error = await _start(servers)
    if error is not None:
        console.error(str(error))
        return 1
    console.all_ready(plan)
    await asyncio.gather(*(_keep(server, console) for server in servers))
    console.error("No server is left.")
    return 1


async def _start(servers: Sequence[ServerProcess]) -> ServerFailed | None:
    """All at once; the first failure, if any, at which the others are no longer waited for."""
    failures: list[ServerFailed] = []
    try:
        async with asyncio.TaskGroup() as group:
            for server in servers:
                group.create_task(server.start())
    except* ServerFailed as errors:
        failures = [error for error in errors.exceptions if isinstance(error, ServerFailed)]
    return failures[0] if failures else None


async def _keep(server: ServerProcess, console: Console) -> None:
    """One that is given up leaves the others running."""
    try:
        await server.run()
    except ServerFailed as error:
        console.error(str(error))


async def _stop(servers: Sequence[ServerProcess], console: Console) -> None:
    """The last started first. All are asked before any is waited for, so that it takes one grace period at most."""
    console.say("Stopping ...")
    async with asyncio.TaskGroup() as group:
        for server in reversed(servers):
            group.create_task(server.stop())
    console.say("All stopped.")
