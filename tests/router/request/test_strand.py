"""A strand runs at once, in the stack of whoever has the news, also of another strand; asyncio takes it for a task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from typing import Any

import pytest

from router.request.strand import Gate, Strand

Log = list[str]


def start(make: Callable[[Strand], Any], ended: Callable[[Strand], None] | None = None) -> Strand:
    strand = Strand(asyncio.get_running_loop(), ended)
    strand.start(make(strand))
    return strand


def current() -> Any:
    return asyncio.current_task()


class Errors:
    """What the loop was told of."""

    def __init__(self) -> None:
        self.seen: list[BaseException] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.seen.append(context["exception"]))


class Bare:
    """Yields what no event loop can wait for."""

    _asyncio_future_blocking = False

    def __await__(self) -> Generator[Bare, None, None]:
        yield self


# -- one inside another ---------------------------------------------------------------------------------------------


async def test_a_strand_opened_inside_another_runs_before_open_returns_and_each_is_current_while_it_runs() -> None:
    task, gates, log, seen = current(), [Gate(), Gate()], Log(), list[Any]()

    async def innermost(strand: Strand) -> None:
        seen.append((current(), strand))
        await gates[1]
        log.append("innermost goes on")
        seen.append((current(), strand))

    async def inner(strand: Strand) -> None:
        seen.append((current(), strand))
        await gates[0]
        log.append("inner goes on")
        gates[1].open()
        log.append("inner ends")
        seen.append((current(), strand))

    async def outer(strand: Strand) -> None:
        started = [start(innermost), start(inner)]
        seen.append((current(), strand))
        log.append("outer opens")
        gates[0].open()
        log.append("outer ends")
        seen.append((current(), strand))
        assert [each.done() for each in started] == [True, True]

    assert start(outer).done()
    assert log == ["outer opens", "inner goes on", "innermost goes on", "inner ends", "outer ends"]
    assert len(seen) == 6
    assert all(found is strand for found, strand in seen)
    assert current() is task


async def test_a_strand_that_waits_on_inside_another_leaves_it_current_and_is_resumed_from_the_loop() -> None:
    gate, log = Gate(), Log()

    async def inner(strand: Strand) -> None:
        await gate
        await asyncio.sleep(0)
        assert current() is strand
        log.append("after a turn")

    async def outer(strand: Strand) -> None:
        gate.open()
        assert current() is strand
        log.append("outer ends")

    one = start(inner)
    start(outer)
    await asyncio.sleep(0)

    assert log == ["outer ends", "after a turn"]
    assert one.done()


async def test_from_a_callback_of_the_loop_there_is_no_task_before_and_none_after() -> None:
    gate, seen = Gate(), list[Any]()
    loop = asyncio.get_running_loop()

    async def waits(strand: Strand) -> None:
        await gate
        seen.append(current() is strand)

    def news() -> None:
        seen.append(current())
        gate.open()
        seen.append(current())

    start(waits)
    loop.call_soon(news)
    await asyncio.sleep(0)

    assert seen == [None, True, None]


async def test_a_strand_that_fails_inside_another_is_the_loops_to_report_and_the_other_goes_on() -> None:
    errors, gate, log = Errors(), Gate(), Log()

    async def inner(_: Strand) -> None:
        await gate
        raise ValueError("inner")

    async def outer(strand: Strand) -> None:
        gate.open()
        assert current() is strand
        await asyncio.sleep(0)
        log.append("outer went on")

    start(inner, lambda _: log.append("inner is over"))
    start(outer)
    await asyncio.sleep(0)

    assert [str(error) for error in errors.seen] == ["inner"]
    assert log == ["inner is over", "outer went on"]


async def test_what_ends_the_program_passes_through_both_and_leaves_the_task_current() -> None:
    task, gate = current(), Gate()

    async def inner(_: Strand) -> None:
        await gate
        raise KeyboardInterrupt

    async def outer(_: Strand) -> None:
        gate.open()

    strands = [start(inner)]
    with pytest.raises(KeyboardInterrupt):
        strands.append(start(outer))

    assert current() is task
    assert strands[0].done()


async def test_news_for_a_strand_from_inside_itself_is_not_lost_and_does_not_run_it_twice() -> None:
    mine, other, log = Gate(), Gate(), Log()
    news: list[str] = []

    async def inner(_: Strand) -> None:
        await other
        news.append("n")
        mine.open()
        log.append("inner ends")

    async def outer(strand: Strand) -> None:
        await mine
        other.open()
        strand.resume()
        while not news:
            await mine
        log.append("outer ends")

    start(inner)
    one = start(outer)
    mine.open()

    assert log == ["inner ends", "outer ends"]
    assert one.done()


async def test_one_that_ends_another_is_ended_first_and_may_start_a_third() -> None:
    """The next request of a connection starts where the one before is over, in the stack of whoever ended that."""
    gate, log, task = Gate(), Log(), current()

    async def third(strand: Strand) -> None:
        log.append("third")
        assert current() is strand

    async def inner(_: Strand) -> None:
        await gate

    async def outer(strand: Strand) -> None:
        gate.open()
        log.append("outer")
        assert current() is strand

    start(inner, lambda _: log.append(str(start(third).done())))
    start(outer)

    assert log == ["third", "True", "outer"]
    assert current() is task


async def test_a_timeout_inside_another_strand_ends_its_own_and_no_other() -> None:
    gate, log = Gate(), Log()
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def inner(strand: Strand) -> None:
        await gate
        try:
            async with asyncio.timeout(0):
                await Gate()
        except TimeoutError:
            log.append("inner timed out")
        assert strand.cancelling() == 0
        over.set_result(None)

    async def outer(_: Strand) -> None:
        gate.open()
        await over
        log.append("outer was not")

    start(inner)
    one = start(outer)
    await over
    await asyncio.sleep(0)

    assert log == ["inner timed out", "outer was not"]
    assert one.done()


# -- as a task ------------------------------------------------------------------------------------------------------


async def test_cancelled_while_it_runs_it_hears_of_it_where_it_waits_next() -> None:
    log = Log()

    async def cancels_itself(strand: Strand) -> None:
        assert strand.cancel("why")
        log.append("still runs")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as stop:
            log.append(str(stop))
            raise

    one = start(cancels_itself)

    assert log == ["still runs", "why"]
    assert one.done()


@pytest.mark.parametrize("wait", [Gate, lambda: asyncio.sleep(0), lambda: asyncio.sleep(60)], ids=["gate", "0", "60"])
async def test_cancelled_while_it_waits_it_hears_of_it_once_however_often_and_no_news_comes_before(
    wait: Callable[[], Awaitable[None]],
) -> None:
    log, gate = Log(), wait()

    async def waits(strand: Strand) -> None:
        try:
            await gate
        except asyncio.CancelledError:
            log.append(f"cancelled {strand.cancelling()}")
        await Gate()

    one = start(waits)
    assert one.cancel()
    assert one.cancel()
    if isinstance(gate, Gate):
        gate.open()
    before = list(log)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    counts = [one.uncancel(), one.uncancel(), one.uncancel()]
    one.cancel()
    await asyncio.sleep(0)

    assert before == []
    assert log == ["cancelled 2"]
    assert counts == [1, 0, 0]
    assert one.done()
    assert not one.cancel()


async def test_a_future_that_was_given_up_wakes_nobody() -> None:
    loop, log = asyncio.get_running_loop(), Log()
    first: asyncio.Future[None] = loop.create_future()

    async def waits(_: Strand) -> None:
        with suppress(asyncio.CancelledError):
            await first
        await Gate()
        log.append("woken")

    one = start(waits)
    first.set_result(None)  # its callback is on its way
    one.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert log == []
    one.cancel()
    await asyncio.sleep(0)


async def test_a_strand_that_ended_before_its_cancellation_came_just_ends() -> None:
    ends = Log()

    async def waits(_: Strand) -> None:
        await asyncio.sleep(0)

    one = start(waits, lambda _: ends.append("ended"))
    asyncio.get_running_loop().call_soon(one.cancel)
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert ends == ["ended"]


async def test_what_cannot_be_waited_for_is_told_to_whoever_tried() -> None:
    async def tries(_: Strand) -> None:
        with pytest.raises(RuntimeError, match="cannot wait for"):
            await Bare()

    assert start(tries).done()
