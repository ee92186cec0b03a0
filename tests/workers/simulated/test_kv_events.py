"""KV events on the wire: SGLang's hashes, frames and replay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import zmq
import zmq.asyncio
from hypothesis import given
from hypothesis import strategies as st

from ports import free_port
from workers.simulated.errors import BadOption
from workers.simulated.kv_events import KvEventsConfig, KvPublisher, block_hashes, event_hash, salt_seed


def stored(hashes: list[int], parent: int | None, tokens: list[int]) -> dict[str, Any]:
    return {
        "type": "BlockStored",
        "block_hashes": hashes,
        "parent_block_hash": parent,
        "token_ids": tokens,
        "block_size": 1,
        "lora_id": None,
        "medium": "GPU",
    }


def test_hashes_are_those_of_a_real_server() -> None:
    """Seen from SGLang 0.5.21 with page size 1 for the prompt [11, 12, 13], without and with cache_salt "s"."""
    plain = [event_hash(digest) for digest in block_hashes([11, 12, 13], None)]
    assert plain == [-3805285395451375351, 7506513167249350507, -3077916588206928548]
    salted = [event_hash(digest) for digest in block_hashes([11, 12, 13], salt_seed("s"))]
    assert salted == [3307305128693386438, -4827103542377068482, 4395116116944767346]


PAGES = st.lists(st.integers(0, 2**32 - 1)) | st.lists(st.tuples(*[st.integers(0, 2**32 - 1)] * 4))


@given(PAGES, st.integers(0, 40))
def test_a_chain_can_be_continued_from_any_page(pages: list[Any], cut: int) -> None:
    head = block_hashes(pages[:cut], None)
    assert head + block_hashes(pages[cut:], head[-1] if head else None) == block_hashes(pages, None)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "kv-events-config"),
        ("[]", "object"),
        ('{"publisher": "kafka"}', "kafka"),
        ('{"publisher": "zmq", "endpont": "tcp://*:1"}', "endpont"),
        ('{"publisher": "zmq", "endpoint": "tcp://*"}', "tcp://*:5557"),
        ('{"publisher": "zmq", "endpoint": "ipc:///x"}', "ipc"),
        ('{"publisher": "zmq", "replay_endpoint": "tcp://*:99999"}', "99999"),
        ('{"publisher": "zmq", "hwm": "many"}', "hwm"),
        ('{"publisher": "zmq", "format": "dynamo"}', "dynamo"),
    ],
)
def test_a_bad_configuration_is_refused_by_name(text: str, word: str) -> None:
    with pytest.raises(BadOption, match="kv-events-config") as caught:
        KvEventsConfig.parse(text)
    assert word in str(caught.value)


async def test_an_address_can_be_bound_that_is_no_wildcard() -> None:
    port = free_port()
    config = KvEventsConfig.parse(f'{{"publisher": "zmq", "endpoint": "tcp://127.0.0.1:{port}", "bind": true}}')
    assert config is not None
    publisher = KvPublisher(config, 0)
    try:
        with pytest.raises(BadOption, match=str(port)):
            KvPublisher(config, 0)
    finally:
        publisher.close()


def test_the_null_publisher_publishes_nothing() -> None:
    assert KvEventsConfig.parse("{}") is None
    assert KvEventsConfig.parse('{"publisher": "null"}') is None


@pytest.fixture
async def publisher() -> AsyncIterator[tuple[KvPublisher, zmq.asyncio.Socket, int]]:
    """A publisher, a subscriber that hears it, and the port of its replay socket."""
    port, replay = free_port(), free_port()
    config = KvEventsConfig(
        publisher="zmq", endpoint=f"tcp://*:{port}", replay_endpoint=f"tcp://*:{replay}", buffer_steps=3, topic="kv"
    )
    sender = KvPublisher(config, 0)
    context = zmq.asyncio.Context()
    receiver = context.socket(zmq.SUB)
    receiver.connect(f"tcp://127.0.0.1:{port}")
    receiver.subscribe(b"kv")
    async with asyncio.timeout(30):
        while not await receiver.poll(20):  # until the subscription has arrived
            sender.add({"type": "AllBlocksCleared"})
            sender.flush()
    while await receiver.poll(50):
        await receiver.recv_multipart()
    yield sender, receiver, replay
    sender.close()
    receiver.close(linger=0)
    context.term()


async def test_a_batch_is_topic_sequence_and_msgpack_with_time_events_and_rank(publisher: Any) -> None:
    sender, receiver, _ = publisher
    sender.add(stored([1], None, [11]))
    sender.add({"type": "BlockRemoved", "block_hashes": [5], "medium": "GPU"})
    sender.flush()
    sender.flush()  # nothing collected: nothing sent
    sender.add({"type": "AllBlocksCleared"})
    sender.flush()
    first, second = [await receiver.recv_multipart() for _ in range(2)]
    assert first[0] == b"kv"
    assert int.from_bytes(second[1], "big") == int.from_bytes(first[1], "big") + 1
    time_s, events, rank = msgspec.msgpack.decode(first[2])
    assert events == [stored([1], None, [11]), {"type": "BlockRemoved", "block_hashes": [5], "medium": "GPU"}]
    assert (rank, time_s > 1e9) == (0, True)


async def test_events_that_continue_a_chain_travel_as_one(publisher: Any) -> None:
    sender, receiver, _ = publisher
    for event in (stored([1], None, [11]), stored([2], 1, [12]), stored([9], None, [99]), stored([10], 9, [98])):
        sender.add(event)
    sender.add({"type": "BlockRemoved", "block_hashes": [1], "medium": "GPU"})
    sender.add({"type": "BlockRemoved", "block_hashes": [2], "medium": "GPU"})
    sender.flush()
    events = msgspec.msgpack.decode((await receiver.recv_multipart())[2])[1]
    assert [event["block_hashes"] for event in events] == [[1, 2], [9, 10], [1, 2]]
    assert [event.get("token_ids") for event in events] == [[11, 12], [99, 98], None]


async def test_replay_sends_what_is_kept_from_a_number_on_and_an_end_marker(publisher: Any) -> None:
    sender, receiver, replay = publisher
    sequences = []
    for number in range(5):
        sender.add(stored([number], None, [number]))
        sender.flush()
        sequences.append(int.from_bytes((await receiver.recv_multipart())[1], "big"))
    task = asyncio.ensure_future(sender.serve_replay())
    context = zmq.asyncio.Context()
    client = context.socket(zmq.DEALER)
    client.connect(f"tcp://127.0.0.1:{replay}")
    try:
        for start, expected in ((0, sequences[-3:]), (sequences[-1], sequences[-1:]), (sequences[-1] + 1, [])):
            await client.send_multipart([b"", start.to_bytes(8, "big")])
            got = []
            async with asyncio.timeout(30):
                while True:
                    empty, sequence, payload = await client.recv_multipart()
                    assert empty == b""
                    if sequence == b"\xff" * 8:
                        assert payload == b""
                        break
                    got.append(int.from_bytes(sequence, "big"))
            assert got == expected  # the buffer holds three batches
    finally:
        task.cancel()
        client.close(linger=0)
        context.term()


async def test_a_port_in_use_is_refused_at_start() -> None:
    port = free_port()
    config = KvEventsConfig(publisher="zmq", endpoint=f"tcp://*:{port}")
    first = KvPublisher(config, 0)
    try:
        with pytest.raises(BadOption, match=str(port)):
            KvPublisher(config, 0)
    finally:
        first.close()


async def test_a_worker_publishes_what_its_cache_stores_evicts_and_clears(start_worker: Any) -> None:
    port, page = free_port(), 4
    config = KvEventsConfig(publisher="zmq", endpoint=f"tcp://*:{port}")
    context = zmq.asyncio.Context()
    receiver = context.socket(zmq.SUB)
    receiver.connect(f"tcp://127.0.0.1:{port + 1}")
    receiver.subscribe(b"")
    known: dict[int, list[int]] = {}

    async def events() -> list[dict[str, Any]]:
        async with asyncio.timeout(30):
            batch: list[dict[str, Any]] = msgspec.msgpack.decode((await receiver.recv_multipart())[2])[1]
        for event in batch:
            if event["type"] == "BlockStored":
                tokens = event["token_ids"]
                assert len(tokens) == page * len(event["block_hashes"])
                for number, block in enumerate(event["block_hashes"]):
                    known[block] = tokens[page * number : page * (number + 1)]
            elif event["type"] == "BlockRemoved":
                for block in event["block_hashes"]:
                    del known[block]
            else:
                known.clear()
        return batch

    try:
        async with start_worker(kv_events=config, page_size=page, kv_capacity_tokens=64, dp_size=2) as worker:
            description = (await worker.get("/server_info")).json()["kv_events"]
            assert description["endpoint_port_base"] == port
            assert (description["block_size"], description["dp_size"]) == (page, 2)

            async def send(ids: list[int], **fields: Any) -> None:
                params = {"max_new_tokens": 1}
                body = {"input_ids": ids, "sampling_params": params, "routed_dp_rank": 1, **fields}
                assert (await worker.post("/generate", body)).status_code == 200

            async with asyncio.timeout(30):  # until the subscription has arrived
                while not await receiver.poll(20):
                    await worker.get("/flush_cache")
            while await receiver.poll(50):
                await receiver.recv_multipart()
            await send(list(range(1, 10)))
            (stored_event,) = await events()
            assert stored_event["token_ids"] == list(range(1, 9))
            assert stored_event["parent_block_hash"] is None
            hashes = [event_hash(digest) for digest in block_hashes([(1, 2, 3, 4), (5, 6, 7, 8)], None)]
            assert stored_event["block_hashes"] == hashes
            await send([*range(1, 9), 20, 21, 22, 23, 24])
            (follower,) = await events()
            assert (follower["parent_block_hash"], follower["token_ids"]) == (hashes[-1], [20, 21, 22, 23])
            await send(list(range(1, 10)), cache_salt="s")
            (salted,) = await events()
            assert salted["cache_salt"] == "s"
            assert not set(salted["block_hashes"]) & set(hashes)
            await send(list(range(100, 150)))  # takes all but a little of the cache: the others must go
            kinds = {event["type"] for event in await events()}
            assert kinds == {"BlockRemoved", "BlockStored"}
            assert len(known) * page <= 64
            assert {token for tokens in known.values() for token in tokens} >= set(range(100, 148))
            await worker.get("/flush_cache")
            assert [event["type"] for event in await events()] == ["AllBlocksCleared"]
            assert not known
    finally:
        receiver.close(linger=0)
        context.term()
