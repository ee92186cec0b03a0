"""Running a coroutine that people stop with Ctrl-C and supervisors with SIGTERM: either cancels it, once, cleanly.

Called by the commands.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine

import uvloop


class Interrupted(Exception):
    """The work was cancelled by a signal and has cleaned up after itself."""


def run_until_interrupted(work: Coroutine[None, None, None]) -> None:
    """Runs `work` to its end on uvloop. Raises Interrupted."""

    async def main() -> None:
        task = asyncio.current_task()
        if task is not None:
            with contextlib.suppress(NotImplementedError):  # Windows
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await work

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        raise Interrupted from error
