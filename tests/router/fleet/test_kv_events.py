"""KV events over real ZeroMQ sockets: followed, missed, replayed, lost; publishers that restart or leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import zmq
import zmq.asyncio

from router.fleet.kv_events import KvEvents, KvEventsConfig
from router.fleet.registry import Registry
from router.fleet.server_info import KvEventsAt, ServerFacts
from router.prefix.page_hash import PageChains, page_hashes
from router.records import FleetEvent
from router.types import CacheCleared, WorkerId

PAGE = 32
DEADLINE_S = 20.0
W = WorkerId("w")


def prompt(number: int, pages: int = 4) -> list[int]:
    return [number * 1000 + place for place in range(pages * PAGE)]


class Publisher:
    """Publishes as SGLang does, from a PUB and a ROUTER bound to free ports; `keep` is its replay buffer."""

    def __init__(self, keep: int = 100) -> None:
        self.context = zmq.asyncio.Context()
        self.pub = self.context.socket(zmq.XPUB)
        self.port = self.pub.bind_to_random_port("tcp://127.0.0.1")
        self.router = self.context.socket(zmq.ROUTER)
        self.replay_port = self.router.bind_to_random_port("tcp://127.0.0.1")
        self.sent: list[tuple[int, bytes]] = []
        self.keep = keep
        self.sequence = 0
        self.replays = 0
        self.task = asyncio.ensure_future(self._serve())

    def at(self, *, replay: bool = True) -> KvEventsAt:
        return KvEventsAt(
            host="*", port=self.port, topic="", block_tokens=PAGE, replay_port=self.replay_port if replay else None
        )

    async def subscribed(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            assert (await self.pub.recv())[:1] == b"\x01"

    async def publish(self, *events: dict[str, Any], drop: bool = False) -> None:
        payload = msgspec.msgpack.encode([0.0, list(events), 0])
        self.sent = [*self.sent, (self.sequence, payload)][-self.keep :]
        if not drop:
            await self.pub.send_multipart((b"", self.sequence.to_bytes(8, "big"), payload))
        self.sequence += 1

    async def store(self, number: int, *, drop: bool = False) -> None:
        tokens = prompt(number)
        event = {"type": "BlockStored", "block_hashes": page_hashes(tokens, PAGE), "parent_block_hash": None}
        await self.publish({**event, "token_ids": tokens, "block_size": PAGE, "lora_id": None}, drop=drop)

    async def _serve(self) -> None:
        while True:
            client, _, start = await self.router.recv_multipart()
            self.replays += 1
            for sequence, payload in self.sent:
                if sequence >= int.from_bytes(start, "big"):
                    await self.router.send_multipart((client, b"", sequence.to_bytes(8, "big"), payload))
            await self.router.send_multipart((client, b"", (-1).to_bytes(8, "big", signed=True), b""))

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.context.destroy(linger=0)


class Following:
    def __init__(self, publisher: Publisher, *, replay: bool) -> None:
        self.registry = Registry(lambda: 0.0)
        self.worker = self.registry.add("http://127.0.0.1:1", "w")
        self.registry.set_facts(self.worker, ServerFacts(identity="1", kv_events=publisher.at(replay=replay)))
        self.told: list[FleetEvent] = []
        self.registry.listen(self.told.append)
        self.events = KvEvents(KvEventsConfig(replay_timeout_s=5.0), self.registry)
        self.chains = PageChains()

    def match(self, number: int) -> int | None:
        return self.events.match({PAGE: self.chains.marks(prompt(number), PAGE)}).get(W)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def following(publisher: Publisher, *, replay: bool = True) -> AsyncIterator[Following]:
    """A follower whose subscription the publisher knows of."""
    made = Following(publisher, replay=replay)
    task = asyncio.ensure_future(made.events.run())
    try:
        await publisher.subscribed()
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await publisher.close()


async def test_stored_blocks_are_matched_and_other_prompts_are_not() -> None:
    publisher = Publisher()
    async with following(publisher) as follower:
        assert follower.events.page_sizes() == frozenset()
        await publisher.store(1)
        await follower.until(lambda: follower.match(1) == 4 * PAGE)

        assert follower.match(2) == 0
        assert follower.events.page_sizes() == {PAGE}


async def test_a_gap_is_replayed() -> None:
    publisher = Publisher()
    async with following(publisher) as follower:
        await publisher.store(1)
        await follower.until(lambda: follower.match(1) == 4 * PAGE)
        await publisher.store(2, drop=True)
        await publisher.store(3, drop=True)
        await publisher.store(4)
        await follower.until(lambda: follower.match(4) == 4 * PAGE)

        assert [follower.match(number) for number in (1, 2, 3)] == [4 * PAGE] * 3
        assert follower.worker.kv_feed is not None
        assert follower.worker.kv_feed.gaps == 0


@pytest.mark.parametrize(("replay", "keep"), [(False, 100), (True, 1)])
async def test_a_gap_that_cannot_be_replayed_leaves_nothing_to_trust_until_the_cache_is_cleared(
    replay: bool, keep: int
) -> None:
    publisher = Publisher(keep)
    async with following(publisher, replay=replay) as follower:
        await publisher.store(1)
        await follower.until(lambda: follower.match(1) == 4 * PAGE)
        await publisher.store(2, drop=True)
        await publisher.store(3)
        await follower.until(lambda: follower.match(1) is None)
        await publisher.publish({"type": "AllBlocksCleared"})
        await publisher.store(5)
        await follower.until(lambda: follower.match(5) == 4 * PAGE)

        assert follower.match(1) == 0
        assert follower.told == [CacheCleared(worker=W, at_s=0.0)]


async def test_what_was_published_before_we_came_is_replayed() -> None:
    publisher = Publisher()
    await publisher.publish({"type": "AllBlocksCleared"})
    await publisher.store(1)
    async with following(publisher) as follower:
        await follower.until(lambda: follower.match(1) == 4 * PAGE)
        await publisher.store(2)
        await follower.until(lambda: follower.match(2) == 4 * PAGE)

        assert follower.told == []  # that the cache was empty once is no news


async def test_a_publisher_that_counts_from_the_start_again_has_an_empty_cache() -> None:
    publisher = Publisher()
    async with following(publisher, replay=False) as follower:
        for number in (1, 2, 3):
            await publisher.store(number)
        await follower.until(lambda: follower.match(3) == 4 * PAGE)
        publisher.sequence, publisher.sent = 0, []
        await publisher.store(4)
        await follower.until(lambda: follower.match(4) == 4 * PAGE)

        assert follower.match(3) == 0
        assert follower.told == [CacheCleared(worker=W, at_s=0.0)]


async def test_a_worker_that_leaves_or_publishes_no_more_is_known_no_more() -> None:
    publisher = Publisher()
    async with following(publisher) as follower:
        await publisher.store(1)
        await follower.until(lambda: follower.match(1) == 4 * PAGE)
        follower.registry.set_facts(follower.worker, ServerFacts(identity="1"))
        await follower.until(lambda: follower.match(1) is None)


async def test_a_replay_that_nobody_answers_is_given_up() -> None:
    publisher = Publisher()
    publisher.task.cancel()
    async with following(publisher) as follower:
        follower.events._config = KvEventsConfig(replay_timeout_s=0.05)
        await publisher.store(1)
        await publisher.store(2)
        await follower.until(lambda: follower.worker.kv_feed is not None and follower.worker.kv_feed.gaps == 0)
        publisher.sequence += 1
        await publisher.store(3)
        await follower.until(lambda: follower.worker.kv_feed is not None and follower.worker.kv_feed.gaps == 1)

        assert follower.match(3) is None


async def test_an_address_that_is_none_costs_no_other_worker_its_feed() -> None:
    publisher = Publisher()
    async with following(publisher) as follower:
        other = follower.registry.add("http://127.0.0.1:2", "odd")
        odd = KvEventsAt(host="no host", port=1, topic="", block_tokens=PAGE)
        follower.registry.set_facts(other, ServerFacts(identity="2", kv_events=odd))
        await follower.until(lambda: other.kv_feed is not None)
        await publisher.store(1)
        await follower.until(lambda: follower.match(1) == 4 * PAGE)

        assert other.kv_feed is not None
        assert not other.kv_feed.usable


async def test_odd_messages_do_no_harm() -> None:
    publisher = Publisher()
    async with following(publisher, replay=False) as follower:
        await publisher.pub.send_multipart((b"", b"short", b"x"))
        await publisher.pub.send_multipart((b"alone",))
        await publisher.store(1)
        await follower.until(lambda: follower.match(1) == 4 * PAGE)
