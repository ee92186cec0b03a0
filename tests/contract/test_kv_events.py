"""KV events over ZeroMQ: what is stored and removed, its hashes, sequence numbers, replay, and ranks."""

from __future__ import annotations

import contextlib
import hashlib
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
import zmq

from workers.sglang.cpu.flavours import KV_CAPACITY_TOKENS

FreshIds = Callable[[int], list[int]]
END = b"\xff" * 8
RECEIVE_WITHIN_MS = 30_000


def block_hashes(ids: Sequence[int], page_size: int, seed: bytes = b"") -> list[int]:
    """The published hashes of the whole pages of `ids`: a chain of SHA-256, of which an event shows eight bytes."""
    hashes, prior = [], seed
    for start in range(0, len(ids) - page_size + 1, page_size):
        prior = hashlib.sha256(prior + struct.pack(f"<{page_size}I", *ids[start : start + page_size])).digest()
        hashes.append(int.from_bytes(prior[:8], "big", signed=True))
    return hashes


@dataclass
class Mirror:
    """What a subscriber believes is cached: the tokens of every block.

    A block can be there more than once: an `extra_key` or an adapter makes a cache of its own and is in no hash.
    """

    page_size: int
    blocks: dict[int, tuple[int | None, list[int]]] = field(default_factory=dict)
    copies: Counter[int] = field(default_factory=Counter)
    kinds: set[str] = field(default_factory=set)

    def apply(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            self.kinds.add(event["type"])
            if event["type"] == "BlockStored":
                self._store(event)
            elif event["type"] == "BlockRemoved":
                for block in event["block_hashes"]:
                    self.copies[block] -= 1
                    assert self.copies[block] >= 0, f"{block} was removed more often than stored"
                    if not self.copies[block]:
                        del self.blocks[block]
            else:
                self.blocks.clear()
                self.copies.clear()

    def _store(self, event: dict[str, Any]) -> None:
        parent, tokens = event["parent_block_hash"], event["token_ids"]
        assert event["block_size"] == self.page_size
        assert len(tokens) == self.page_size * len(event["block_hashes"])
        for number, block in enumerate(event["block_hashes"]):
            self.blocks[block] = (parent, tokens[number * self.page_size : (number + 1) * self.page_size])
            self.copies[block] += 1
            parent = block


@contextlib.contextmanager
def socket(kind: int, port: int) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(kind) as opened:
        opened.linger = 0
        opened.rcvtimeo = RECEIVE_WITHIN_MS
        opened.connect(f"tcp://127.0.0.1:{port}")
        yield opened


def replayed(server: Any, start: int = 0, rank: int = 0) -> list[tuple[int, Any]]:
    """(sequence, batch) of everything the server still holds from `start` on."""
    batches = []
    with socket(zmq.DEALER, server.replay_port + rank) as asking:
        asking.send_multipart([b"", start.to_bytes(8, "big")])
        while True:
            *_, sequence, payload = asking.recv_multipart()
            if sequence == END:
                return batches
            batches.append((int.from_bytes(sequence, "big"), msgspec.msgpack.decode(payload)))


def mirror_of(server: Any, rank: int = 0) -> Mirror:
    mirror = Mirror(server.page_size)
    for _, (_, events, _) in replayed(server, rank=rank):
        mirror.apply(events)
    return mirror


def stored(server: Any, hashes: Sequence[int], rank: int = 0) -> bool:
    return set(hashes) <= set(mirror_of(server, rank).blocks)


def test_a_prompt_is_published_in_whole_pages_with_chained_hashes(worker: Any, fresh_ids: FreshIds, until: Any) -> None:
    ids = fresh_ids(50)
    worker.generate(ids)
    hashes = block_hashes(ids, 16)
    until(lambda: stored(worker, hashes))
    blocks = mirror_of(worker).blocks

    assert len(hashes) == 3
    assert [blocks[block][0] for block in hashes] == [None, hashes[0], hashes[1]]
    assert [token for block in hashes for token in blocks[block][1]] == ids[:48]


def test_what_was_generated_is_published_too(worker: Any, fresh_ids: FreshIds, until: Any) -> None:
    ids = fresh_ids(20)
    said = worker.generate(ids, 13)["output_ids"]
    hashes = block_hashes((ids + said)[:-1], 16)

    assert len(hashes) == 2
    until(lambda: stored(worker, hashes))


def test_a_stored_event_has_exactly_these_fields(worker: Any, fresh_ids: FreshIds, until: Any) -> None:
    ids = fresh_ids(32)
    worker.generate(ids)
    first = block_hashes(ids, 16)[0]
    until(lambda: stored(worker, [first]))
    (event,) = [
        event
        for _, (_, events, _) in replayed(worker)
        for event in events
        if event["type"] == "BlockStored" and first in event["block_hashes"]
    ]

    assert list(event) == [
        "type", "block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium",
    ]  # fmt: skip
    assert (event["lora_id"], event["medium"]) == (None, "GPU")


def test_a_salted_prompt_has_other_hashes_and_names_its_salt(worker: Any, fresh_ids: FreshIds, until: Any) -> None:
    ids = fresh_ids(16)
    worker.generate([*ids, 7], cache_salt="pepper")
    seed = hashlib.sha256(b"sglang-cache-salt-v1\0pepper").digest()
    (salted,) = block_hashes(ids, 16, seed)
    until(lambda: stored(worker, [salted]))
    (event,) = [
        event for _, (_, events, _) in replayed(worker) for event in events if salted in event.get("block_hashes", ())
    ]

    assert event["cache_salt"] == "pepper"


def test_subscribers_get_topic_sequence_and_batch(worker: Any, fresh_ids: FreshIds, until: Any) -> None:
    with socket(zmq.SUB, worker.publish_port) as subscriber:
        subscriber.subscribe(b"")

        def arrives() -> bool:  # a subscription takes effect some time after it was made
            worker.generate(fresh_ids(17))
            return bool(subscriber.poll(200))

        until(arrives)
        ids = fresh_ids(17)
        worker.generate(ids)
        received = []
        while not received or block_hashes(ids, 16) != received[-1][2][1][-1]["block_hashes"]:
            topic, sequence, payload = subscriber.recv_multipart()
            received.append((topic, int.from_bytes(sequence, "big"), msgspec.msgpack.decode(payload)))

    sequences = [sequence for _, sequence, _ in received]
    _, _, (timestamp, events, rank) = received[-1]
    assert {topic for topic, _, _ in received} == {b""}
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    assert timestamp > 1_700_000_000
    assert rank == 0
    assert events[-1]["type"] == "BlockStored"


def test_a_replay_starts_where_it_is_asked_to_and_has_no_gaps(worker: Any, fresh_ids: FreshIds, until: Any) -> None:
    for _ in range(3):
        ids = fresh_ids(17)
        worker.generate(ids)
        hashes = block_hashes(ids, 16)
        until(lambda hashes=hashes: stored(worker, hashes))
    everything = [sequence for sequence, _ in replayed(worker)]
    last = everything[-1]

    assert everything == list(range(last + 1))
    assert [sequence for sequence, _ in replayed(worker, last - 1)] == [last - 1, last]
    assert replayed(worker, last + 1) == []


def test_eviction_is_published_and_the_mirror_never_exceeds_the_cache(
    worker: Any, fresh_ids: FreshIds, until: Any
) -> None:
    first = fresh_ids(1000)
    worker.generate(first)
    for _ in range(3):
        worker.generate(fresh_ids(KV_CAPACITY_TOKENS // 3))
    until(lambda: not set(block_hashes(first, 16)) & set(mirror_of(worker).blocks))

    assert "BlockRemoved" in mirror_of(worker).kinds
    assert mirror_of(worker).copies.total() * 16 <= KV_CAPACITY_TOKENS


def test_cached_tokens_are_exactly_what_the_events_said_is_stored(
    worker: Any, fresh_ids: FreshIds, fresh_text: Callable[[int], str], until: Any
) -> None:
    """Multi-turn chats whose answers come back as text: the events know how much of an answer was tokenised alike."""
    messages = [{"role": "user", "content": fresh_text(20)}]
    for _ in range(4):
        prompt = worker.tokenize(messages)
        hashes = block_hashes(prompt[:-1], 16)
        blocks = mirror_of(worker).blocks
        expected = 16 * next((index for index, block in enumerate(hashes) if block not in blocks), len(hashes))
        answer = worker.chat(messages, max_tokens=24)
        details = answer["usage"]["prompt_tokens_details"]
        assert (details["cached_tokens"] if details else 0) == expected
        fence = fresh_ids(17)  # events come in order: once this prompt's have come, so have all of the answer's
        worker.generate(fence)
        until(lambda fence=fence: stored(worker, block_hashes(fence, 16)))
        messages += [
            {"role": "assistant", "content": answer["choices"][0]["message"]["content"]},
            {"role": "user", "content": fresh_text(5)},
        ]


def test_a_flush_clears_the_mirror(worker: Any, fresh_ids: FreshIds, until: Any) -> None:
    worker.generate(fresh_ids(20))
    worker.flush()
    until(lambda: not mirror_of(worker).blocks)

    assert "AllBlocksCleared" in mirror_of(worker).kinds


@pytest.mark.parametrize("rank", [0, 1])
def test_each_rank_publishes_on_a_port_of_its_own_and_names_itself(
    guarded: Any, fresh_ids: FreshIds, until: Any, rank: int
) -> None:
    ids = fresh_ids(5)
    guarded.generate(ids, routed_dp_rank=rank)
    hashes = block_hashes(ids, 1)
    until(lambda: stored(guarded, hashes, rank))

    assert not stored(guarded, hashes, 1 - rank)
    assert {batch[2] for _, batch in replayed(guarded, rank=rank)} == {rank}


def test_server_info_tells_a_subscriber_where_to_connect(worker: Any, guarded: Any) -> None:
    for server in (worker, guarded):
        assert server.get("/server_info").json()["kv_events"] == {
            "publisher": "zmq",
            "endpoint_host": "*",
            "endpoint_port_base": server.publish_port,
            "topic": "",
            "block_size": server.page_size,
            "dp_size": server.flavour.dp_size,
        }
