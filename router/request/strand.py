"""Runs the coroutine of one request without an asyncio.Task: from its first line at once, and on from a Gate at once.

A Task takes a turn of the event loop to start and another for every wake-up; a Strand runs in the stack of whoever
has the news (the bytes that came). Futures of asyncio may be awaited too, and asyncio.timeout and sleep work, because
a Strand can be cancelled as a Task can and is the current task while it runs. Called by model_call,
over_asgi and forward.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task, current_task
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any, Final

OVER: Final = object()
"""What a coroutine yields that has ended. An exception for it would cost as much as the rest of a turn."""


class Gate:
    """Where one strand waits. `open` resumes it before it returns; without a waiter it does nothing, so whoever waits
    looks first whether there is anything to wait for, and again afterwards.
    """

    __slots__ = ("strand",)

    def __init__(self) -> None:
        self.strand: Strand | None = None

    def __await__(self) -> Generator[Gate, None, None]:
        yield self

    def open(self) -> None:
        strand = self.strand
        if strand is not None:
            self.strand = None
            strand.resume()


class Strand:
    """`ended` is called once, after the last line. An exception that leaves the coroutine is the loop's to report."""

    __slots__ = (
        "_cancelling", "_coro", "_ended", "_error", "_gate", "_running", "_steps", "_waits", "done_", "loop",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, ended: Callable[[Strand], None] | None = None) -> None:
        self.loop = loop
        self._coro: Coroutine[Any, Any, None] | None = None
        self._steps: Iterator[Any] = iter(())
        self._ended = ended
        self._gate: Gate | None = None
        self._waits: asyncio.Future[Any] | None = None
        self._error: BaseException | None = None
        self._cancelling = 0
        self._running = False
        self.done_ = False

    def start(self, coro: Coroutine[Any, Any, None]) -> None:
        """Run it until it waits for the first time, or ends. Call it once."""
        self._coro = coro
        self._steps = coro.__await__()
        self.resume()

    def resume(self) -> None:
        """Run on until the coroutine waits again or ends."""
        if self._running:  # whoever has the news was called by this very coroutine: it looks before it waits
            return
        self._gate = None
        loop, steps = self.loop, self._steps
        outer: asyncio.Task[Any] | None = None
        try:
            _enter_task(loop, self)  # type: ignore[arg-type]
        except RuntimeError:  # it runs in the stack of a task, or of another strand
            outer = current_task(loop)
            assert outer is not None
            _leave_task(loop, outer)
            _enter_task(loop, self)  # type: ignore[arg-type]
        self._running = True
        try:
            while True:
                error = self._error
                if error is None:
                    waits = next(steps, OVER)
                else:
                    self._error = None
                    assert self._coro is not None
                    waits = self._coro.throw(error)
                if waits is OVER:
                    self.done_ = True
                    return
                if self._error is not None:
                    continue  # cancelled while it ran
                if type(waits) is Gate:
                    waits.strand = self
                    self._gate = waits
                    return
                if self._waits_for(waits):
                    return
        except StopIteration:
            self.done_ = True
        except asyncio.CancelledError:
            self.done_ = True
        except BaseException as error:
            self.done_ = True
            if not isinstance(error, Exception):
                raise
            loop.call_exception_handler({"message": "a request's strand failed", "exception": error})
        finally:
            self._running = False
            _leave_task(loop, self)  # type: ignore[arg-type]
            if outer is not None:
                _enter_task(loop, outer)
            if self.done_ and self._ended is not None:
                ended, self._ended = self._ended, None
                ended(self)

    def _waits_for(self, waits: Any) -> bool:
        """It waits for something of asyncio's. False: that cannot be waited for, and it is told so."""
        if waits is None:  # asyncio.sleep(0)
            self.loop.call_soon(self._woken, None)
            return True
        if waits._asyncio_future_blocking:  # noqa: SLF001  the protocol between futures and tasks (asyncio.futures)
            waits._asyncio_future_blocking = False  # noqa: SLF001
            waits.add_done_callback(self._woken)
            self._waits = waits
            return True
        self._error = RuntimeError(f"a strand cannot wait for {waits!r}")
        return False

    def _woken(self, future: asyncio.Future[Any] | None) -> None:
        if future is self._waits and not self.done_:
            self._waits = None
            self.resume()

    # -- as a Task ----------------------------------------------------------------------------------------------

    def cancel(self, msg: str | None = None) -> bool:
        """CancelledError(msg) is raised where the coroutine waits, in the loop's next turn."""
        if self.done_:
            return False
        self._cancelling += 1
        first = self._error is None
        if first:
            self._error = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        if self._running or not first:
            return True
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.strand = None
        future, self._waits = self._waits, None
        if future is not None:
            future.remove_done_callback(self._woken)
            future.cancel()
        self.loop.call_soon(self._thrown)
        return True

    def _thrown(self) -> None:
        if self._error is not None and not self.done_:
            self.resume()

    def cancelling(self) -> int:
        return self._cancelling

    def uncancel(self) -> int:
        self._cancelling = max(0, self._cancelling - 1)
        return self._cancelling

    def done(self) -> bool:
        return self.done_
