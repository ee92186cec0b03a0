"""What the chaos run makes trouble with: its schedule can be repeated, and its partition holds everything back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

CHAOS = Path(__file__).parents[2] / "benchmarks" / "chaos"


@pytest.fixture(autouse=True)
def chaos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the modules of the chaos suite importable."""
    monkeypatch.syspath_prepend(str(CHAOS))


def test_the_same_seed_makes_the_same_troubles_and_a_long_run_has_them_all() -> None:
    from schedule import KINDS, schedule

    plan = schedule(1, 300.0, 8)

    assert plan == schedule(1, 300.0, 8) != schedule(2, 300.0, 8)
    assert {each.kind for each in plan} == set(KINDS)
    assert max(each.at_s for each in plan) < 0.85 * 300


@pytest.mark.parametrize("seed", range(5))
def test_at_most_three_workers_are_in_trouble_at_a_time_and_only_those_with_a_relay_partitioned(seed: int) -> None:
    from schedule import MOST_AT_ONCE, WITH_RELAY, schedule

    plan = [each for each in schedule(seed, 600.0, 8) if each.worker is not None]

    for trouble in plan:
        others = {each.worker for each in plan if each.at_s <= trouble.at_s < each.at_s + each.for_s}
        assert len(others) <= MOST_AT_ONCE
    assert all(each.worker in range(WITH_RELAY) for each in plan if each.kind == "partition")


async def test_a_held_relay_forwards_nothing_and_says_nothing_until_it_is_released() -> None:
    from relay import Relay

    seen: asyncio.Queue[bytes] = asyncio.Queue()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            seen.put_nowait(data)
            writer.write(data)
        seen.put_nowait(b"the end")
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    relay = Relay(server.sockets[0].getsockname()[1])
    await relay.start()
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(b"one")
        assert (await seen.get(), await reader.readexactly(3)) == (b"one", b"one")

        relay.hold()
        writer.write(b"two")
        _, second = await asyncio.open_connection("127.0.0.1", relay.port)
        second.write(b"three")
        await asyncio.sleep(0.1)
        assert seen.empty()

        relay.release()
        assert {await seen.get(), await seen.get()} == {b"two", b"three"}
        assert await reader.readexactly(3) == b"two"
        for each in (writer, second):
            each.close()
            await each.wait_closed()
            assert await seen.get() == b"the end"
    relay.close()
    server.close()
    await server.wait_closed()


async def test_a_relay_hangs_up_where_its_worker_is_dead() -> None:
    from relay import Relay

    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    relay = Relay(server.sockets[0].getsockname()[1])
    server.close()
    await server.wait_closed()
    await relay.start()
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        assert await reader.read() == b""
    writer.close()
    relay.close()
