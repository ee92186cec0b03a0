"""KV events as SGLang publishes them over ZeroMQ: PUB frames [topic, sequence, msgpack], and a ROUTER that replays.

`KvEventsConfig` is SGLang's --kv-events-config; `BlockHashes` are its chained block hashes; `KvPublisher` is one rank's
socket pair. Everything runs on the event loop; sends never block. Called by rank.py and info_api.
"""

from __future__ import annotations

import hashlib
import struct
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import zmq
import zmq.asyncio

from workers.simulated.errors import BadOption

if TYPE_CHECKING:
    from workers.simulated.options import Options

_WILDCARDS = ("*", "0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
END_OF_REPLAY = (-1).to_bytes(8, "big", signed=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class KvEventsConfig:
    """SGLang's --kv-events-config. `endpoint` binds when its host is a wildcard, and connects otherwise, unless `bind`
    says which (SGLang 0.5.23); of that version's formats only "default" is published.
    """

    publisher: str = "null"
    endpoint: str = "tcp://*:5557"
    replay_endpoint: str | None = None
    buffer_steps: int = 10_000
    hwm: int = 100_000
    max_queue_size: int = 100_000
    topic: str = ""
    bind: bool | None = None
    format: str = "default"

    @staticmethod
    def parse(text: str) -> KvEventsConfig | None:
        """From JSON; None when the publisher is "null". Raises BadOption."""
        try:
            config = msgspec.json.decode(text, type=KvEventsConfig)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadOption(f"--kv-events-config: {error}") from error
        known = set(KvEventsConfig.__dataclass_fields__)
        unknown = sorted(set(msgspec.json.decode(text)) - known)
        if unknown:
            raise BadOption(f"--kv-events-config has no key {unknown[0]!r}; known keys: {', '.join(sorted(known))}")
        if config.publisher not in {"null", "zmq"}:
            raise BadOption(f"--kv-events-config: publisher must be 'zmq' or 'null', got {config.publisher!r}")
        if config.format != "default":
            raise BadOption(f"--kv-events-config: only format 'default' is simulated, got {config.format!r}")
        for endpoint in (config.endpoint, config.replay_endpoint):
            if endpoint is not None:
                _host_and_port(endpoint)
        return config if config.publisher == "zmq" else None

    def description(self, options: Options) -> dict[str, Any]:
        """The `kv_events` object of /server_info."""
        host, port = _host_and_port(self.endpoint)
        return {
            "publisher": self.publisher,
            "endpoint_host": host,
            "endpoint_port_base": port,
            "topic": self.topic,
            "block_size": options.page_size,
            "dp_size": options.dp_size,
        }


def _host_and_port(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    if not endpoint.startswith("tcp://") or not host or not port.isdigit() or not 0 < int(port) <= 65_535:
        raise BadOption(f"--kv-events-config: endpoint must look like tcp://*:5557, got {endpoint!r}")
    return host, int(port)


def _of_rank(endpoint: str, rank: int) -> str:
    base, _, port = endpoint.rpartition(":")
    return f"{base}:{int(port) + rank}"


def block_hashes(pages: Sequence[Any], seed: bytes | None) -> list[bytes]:
    """SGLang's chain: SHA-256 of the parent's digest (or `seed`, or nothing) and the page's ids as 32-bit integers.

    A page is a token id (page size 1) or a tuple of ids.
    """
    digests: list[bytes] = []
    prior = seed or b""
    for page in pages:
        data = page.to_bytes(4, "little") if isinstance(page, int) else struct.pack(f"<{len(page)}I", *page)
        prior = hashlib.sha256(prior + data).digest()
        digests.append(prior)
    return digests


def salt_seed(cache_salt: str | None) -> bytes | None:
    """What the first block of a salted prompt is chained to (SGLang 0.5.21; extra_key does not enter event hashes)."""
    if cache_salt is None:
        return None
    return hashlib.sha256(b"sglang-cache-salt-v1\0" + cache_salt.encode()).digest()


def event_hash(digest: bytes) -> int:
    """A block's hash in an event: the first eight bytes, big-endian, as a signed 64-bit integer."""
    return int.from_bytes(digest[:8], "big", signed=True)


class KvPublisher:
    """One rank's sockets. Collects events in order; `flush` sends what has come together as one batch."""

    def __init__(self, config: KvEventsConfig, rank: int) -> None:
        self._rank = rank
        self._topic = config.topic.encode()
        self._sequence = 0
        self._sent: deque[tuple[int, bytes]] = deque(maxlen=config.buffer_steps)
        self._events: list[dict[str, Any]] = []
        self._encode = msgspec.msgpack.Encoder().encode
        self._context = zmq.asyncio.Context()
        self._pub: zmq.Socket[bytes] = zmq.Context.shadow(self._context.underlying).socket(zmq.PUB)
        self._pub.set_hwm(config.hwm)
        self._replay: zmq.asyncio.Socket | None = None
        endpoint = _of_rank(config.endpoint, rank)
        try:
            wildcard = _host_and_port(endpoint)[0].strip("[]") in _WILDCARDS
            if wildcard if config.bind is None else config.bind:
                self._pub.bind(endpoint)
            else:
                self._pub.connect(endpoint)
            if config.replay_endpoint is not None:
                self._replay = self._context.socket(zmq.ROUTER)
                self._replay.bind(_of_rank(config.replay_endpoint, rank))
        except zmq.ZMQError as error:
            self.close()
            raise BadOption(f"--kv-events-config: cannot use {endpoint} or its replay endpoint: {error}") from error

    def add(self, event: dict[str, Any]) -> None:
        """Takes the next event; one that continues the last one's chain joins it, as in SGLang."""
        last = self._events[-1] if self._events else None
        if last is not None and last["type"] == event["type"]:
            if event["type"] == "BlockRemoved":
                last["block_hashes"] += event["block_hashes"]
                return
            if (
                event["type"] == "BlockStored"
                and event["parent_block_hash"] == last["block_hashes"][-1]
                and event["block_size"] == last["block_size"]
                and event.get("cache_salt") == last.get("cache_salt")
            ):
                last["block_hashes"] += event["block_hashes"]
                last["token_ids"] += event["token_ids"]
                return
        self._events.append(event)

    def restart(self) -> None:
        """Forgets everything and counts from zero, as a new process would."""
        self._events = []
        self._sent.clear()
        self._sequence = 0

    def flush(self) -> None:
        """Sends the collected events. A full queue of the socket drops them, as PUB does."""
        if not self._events:
            return
        payload = self._encode([time.time_ns() / 1e9, self._events, self._rank])
        self._events = []
        sequence = self._sequence
        self._sequence += 1
        self._pub.send_multipart((self._topic, sequence.to_bytes(8, "big"), payload), flags=zmq.NOBLOCK)
        self._sent.append((sequence, payload))

    async def serve_replay(self) -> None:
        """Answers replay requests until cancelled. Returns at once where no replay endpoint is configured."""
        if self._replay is None:
            return
        while True:
            frames = await self._replay.recv_multipart()
            if len(frames) != 3:
                continue
            client, _, start = frames
            first = int.from_bytes(start, "big")
            for sequence, payload in list(self._sent):
                if sequence >= first:
                    await self._replay.send_multipart((client, b"", sequence.to_bytes(8, "big"), payload))
            await self._replay.send_multipart((client, b"", END_OF_REPLAY, b""))

    def close(self) -> None:
        """Closes the sockets without waiting for subscribers."""
        self._pub.close(linger=0)
        if self._replay is not None:
            self._replay.close(linger=0)
        self._context.term()
