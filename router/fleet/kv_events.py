"""Follows the KV events that workers publish over ZeroMQ, and keeps the exact index of what each holds.

One SUB socket per worker, at the address of its `/server_info`; a gap is replayed from the server's ROUTER where it
has one. Called by app (run) and request.exact (match). Not here: what a feed's messages mean (kv_feed, kv_wire).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import zmq
import zmq.asyncio
from zmq.utils.monitor import recv_monitor_message

from router.fleet.kv_feed import FeedState, KvFeed
from router.fleet.registry import Registry
from router.fleet.server_info import KvEventsAt
from router.fleet.worker import Worker
from router.knob import knob, require
from router.prefix.block_index import BlockIndex
from router.prefix.page_hash import Mark
from router.types import WorkerId

log = logging.getLogger(__name__)

WILDCARDS = ("*", "0.0.0.0", "::", "[::]")  # noqa: S104  compared with, not bound to
LOOK_S = 0.5
"""How often the fleet is compared with the feeds that run."""
HEARTBEAT_MS = 5_000
"""A publisher that answers no ZeroMQ heartbeat for this long counts as disconnected."""
END_OF_REPLAY = -1
QUEUE_MESSAGES = 100_000
"""SGLang's own default high-water mark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KvEventsConfig:
    replay_timeout_s: float = knob(2.0, "seconds a worker may take to send missed events once more")
    replay_port: int | None = knob(
        None, "port of the workers' replay endpoint (rank 0), for servers that do not announce it"
    )

    def __post_init__(self) -> None:
        require(self.replay_timeout_s > 0, "replay_timeout_s must be positive")
        require(self.replay_port is None or 0 < self.replay_port <= 65_535, "replay_port must be between 1 and 65,535")


@dataclass(slots=True)
class _Running:
    at: KvEventsAt
    feed: KvFeed
    task: asyncio.Task[None]


class KvEvents:
    """All feeds of one app. `run` owns the sockets and ends with its task."""

    def __init__(self, config: KvEventsConfig, registry: Registry) -> None:
        self._config = config
        self._registry = registry
        self._index = BlockIndex()
        self._running: dict[WorkerId, _Running] = {}

    # -- reading ------------------------------------------------------------------------------------------------

    def page_sizes(self) -> frozenset[int]:
        """Page sizes, in tokens, of the workers whose index can be trusted now; empty when there is none."""
        return frozenset(each.feed.page_tokens for each in self._running.values() if each.feed.state.usable)

    def match(self, marks: Mapping[int, Sequence[Mark]]) -> dict[WorkerId, int]:
        """Matched tokens on every worker that can be trusted now, for a prompt's marks by page size."""
        return {
            name: self._index.match(name, marks[each.feed.page_tokens])
            for name, each in self._running.items()
            if each.feed.state.usable and each.feed.page_tokens in marks
        }

    # -- following ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow whatever publishes, until cancelled."""
        context = zmq.asyncio.Context()
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    self._look(context, tasks)
                    await asyncio.sleep(LOOK_S)
        finally:
            self._running.clear()
            context.destroy(linger=0)

    def _look(self, context: zmq.asyncio.Context, tasks: asyncio.TaskGroup) -> None:
        """Start feeds of workers that publish, stop those of workers that left or publish elsewhere."""
        wanted = {worker.id: worker for worker in self._registry.all() if worker.facts and worker.facts.kv_events}
        for name, running in list(self._running.items()):
            worker = wanted.get(name)
            at = worker.facts.kv_events if worker and worker.facts else None
            if at != running.at or running.task.done():
                running.task.cancel()
                self._index.clear(name)
                del self._running[name]
        for name, worker in wanted.items():
            if name not in self._running and worker.facts and worker.facts.kv_events:
                at = worker.facts.kv_events
                feed = KvFeed(name, at.block_tokens, self._index, FeedState(), self._told_empty(name))
                self._running[name] = _Running(at, feed, tasks.create_task(self._follow(context, worker, at, feed)))
                worker.kv_feed = feed.state
            feed = self._running[name].feed
            feed.capacity_tokens = worker.load.capacity_tokens if worker.load else None
            feed.state.blocks = self._index.size_blocks(name)

    def _told_empty(self, name: WorkerId) -> Callable[[], None]:
        def told() -> None:
            if any(worker.id == name for worker in self._registry.all()):
                self._registry.cache_cleared(self._registry.get(name))

        return told

    async def _follow(self, context: zmq.asyncio.Context, worker: Worker, at: KvEventsAt, feed: KvFeed) -> None:
        rank = worker.rank or 0
        host = _host(worker, at)
        live = context.socket(zmq.SUB)
        replay_port = at.replay_port or self._config.replay_port
        replay = None if replay_port is None else f"tcp://{host}:{replay_port + rank}"
        try:
            live.set_hwm(QUEUE_MESSAGES)
            live.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
            live.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_MS)
            live.setsockopt_string(zmq.SUBSCRIBE, at.topic)
            monitor = live.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
            live.connect(f"tcp://{host}:{at.port + rank}")
            connected = asyncio.Event()
            async with asyncio.TaskGroup() as both:
                both.create_task(_watch_connection(monitor, feed.state, connected))
                both.create_task(self._listen(context, live, replay, feed, connected))
        except* zmq.ZMQError as errors:  # this feed alone ends; it is started again at the next look
            log.warning("worker %s: KV events cannot be followed: %s", worker.id, errors.exceptions[0])
        finally:
            feed.state.connected = False
            live.disable_monitor()
            live.close(linger=0)

    async def _listen(
        self,
        context: zmq.asyncio.Context,
        live: zmq.asyncio.Socket,
        replay: str | None,
        feed: KvFeed,
        connected: asyncio.Event,
    ) -> None:
        if replay is not None:
            await connected.wait()  # so that nothing falls between what is replayed and what comes live
            await self._replay(context, replay, 0, feed)
        while True:
            frames = await live.recv_multipart()
            if len(frames) < 2 or len(frames[-2]) != 8:
                continue
            sequence = int.from_bytes(frames[-2], "big")
            await self._order(context, replay, sequence, feed)
            if not feed.is_old(sequence):
                _take(feed, sequence, frames[-1])

    async def _order(self, context: zmq.asyncio.Context, replay: str | None, sequence: int, feed: KvFeed) -> None:
        """Before message `sequence` is taken: fetch what is missing before it, or notice that it cannot be had."""
        if feed.expected is None or feed.is_old(sequence):
            return
        if sequence < feed.expected:
            feed.restarted()
            if sequence > 0 and replay is not None:
                await self._replay(context, replay, 0, feed)
            return
        missing = feed.expected
        if sequence == missing:
            return
        log.info("worker %s: KV events %d to %d did not come", feed.worker, missing, sequence - 1)
        first = None if replay is None else await self._replay(context, replay, missing, feed)
        if first != missing:
            feed.lost()

    async def _replay(self, context: zmq.asyncio.Context, address: str, start: int, feed: KvFeed) -> int | None:
        """Take all that the server still has from `start` on; returns the first number that came, None if none."""
        first: int | None = None
        dealer = context.socket(zmq.DEALER)
        feed.state.catching_up, feed.history = True, start == 0
        try:
            dealer.connect(address)
            async with asyncio.timeout(self._config.replay_timeout_s):
                await dealer.send_multipart((b"", start.to_bytes(8, "big")))
                while True:
                    frames = await dealer.recv_multipart()
                    if len(frames) < 2 or len(frames[-2]) != 8:
                        continue
                    sequence = int.from_bytes(frames[-2], "big", signed=True)
                    if sequence == END_OF_REPLAY:
                        break
                    if first is None:
                        first = sequence
                        if sequence > start and start > 0:
                            return first  # its buffer does not reach back: what is missing is gone
                    _take(feed, sequence, frames[-1])
        except TimeoutError:
            log.info("worker %s: no replay of KV events from %s", feed.worker, address)
        finally:
            feed.state.catching_up = feed.history = False
            dealer.close(linger=0)
        if first is not None and feed.expected is not None:
            feed.replayed(feed.expected)
        return first


def _take(feed: KvFeed, sequence: int, payload: bytes) -> None:
    try:
        feed.take(sequence, payload)
    except ValueError as error:
        log.warning("worker %s: %s", feed.worker, error)
        feed.lost()


async def _watch_connection(monitor: zmq.asyncio.Socket, state: FeedState, connected: asyncio.Event) -> None:
    """Keep `state.connected` true. Only sequence numbers tell whether something was missed meanwhile."""
    while True:
        event = await recv_monitor_message(monitor)
        state.connected = event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
        if state.connected:
            connected.set()
        if event["event"] == zmq.EVENT_MONITOR_STOPPED:
            return


def _host(worker: Worker, at: KvEventsAt) -> str:
    """Where to dial: the announced host, or the worker's own where a wildcard or loopback was announced."""
    own = urlsplit(worker.base_url).hostname or at.host
    return own if at.host in WILDCARDS else at.host
