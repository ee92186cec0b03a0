"""When a worker's events can be trusted, and what each of them does to the index."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from router.fleet.kv_feed import FeedState, KvFeed
from router.prefix.block_index import BlockIndex
from router.prefix.page_hash import page_hashes
from router.types import WorkerId

W = WorkerId("w")
PAGE = 32
TOKENS = list(range(4 * PAGE))
HASHES = page_hashes(TOKENS, PAGE)
MARKS = [((place + 1) * PAGE, value) for place, value in enumerate(HASHES)]


def stored(hashes: list[int] = HASHES, **more: Any) -> dict[str, Any]:
    event = {"type": "BlockStored", "block_hashes": hashes, "parent_block_hash": None, "token_ids": TOKENS}
    return {**event, "block_size": PAGE, "lora_id": None, **more}


class Followed:
    def __init__(self) -> None:
        self.index = BlockIndex()
        self.cleared = 0
        self.state = FeedState(connected=True)
        self.feed = KvFeed(W, PAGE, self.index, self.state, self._clear)
        self.sequence = 0

    def _clear(self) -> None:
        self.cleared += 1

    def take(self, *events: Any) -> None:
        self.feed.take(self.sequence, msgspec.msgpack.encode([0.0, list(events), 0]))
        self.sequence += 1

    def match(self) -> int:
        return self.index.match(W, MARKS)


def test_a_feed_is_usable_once_connected_and_heard() -> None:
    followed = Followed()
    before = followed.state.usable
    followed.take(stored())

    assert (before, followed.state.usable, followed.match()) == (False, True, 4 * PAGE)
    followed.state.connected = False
    assert not followed.state.usable


def test_removed_blocks_are_gone_and_a_cleared_cache_is_told() -> None:
    followed = Followed()
    followed.take(stored(), {"type": "BlockRemoved", "block_hashes": HASHES[2:]})
    removed = followed.match()
    followed.take({"type": "AllBlocksCleared"})

    assert (removed, followed.match(), followed.cleared) == (2 * PAGE, 0, 1)


def test_after_a_loss_nothing_is_trusted_until_the_cache_has_turned_over() -> None:
    followed = Followed()
    followed.feed.capacity_tokens = 8 * PAGE
    followed.take(stored())
    followed.feed.lost()
    lost = followed.match(), followed.state.usable
    followed.take(stored())
    half = followed.state.usable
    followed.take(stored())

    assert (lost, half, followed.state.usable, followed.state.gaps) == ((0, False), False, True, 1)


@pytest.mark.parametrize("event", [{"type": "AllBlocksCleared"}])
def test_a_cache_that_says_it_is_empty_can_be_trusted_at_once(event: dict[str, Any]) -> None:
    followed = Followed()
    followed.feed.lost()
    followed.take(event)

    assert followed.state.usable


def test_a_restarted_publisher_starts_with_an_empty_index() -> None:
    followed = Followed()
    followed.take(stored())
    followed.feed.restarted()

    assert (followed.match(), followed.feed.expected) == (0, None)


@pytest.mark.parametrize(
    "odd",
    [stored(hashes=[1, 2, 3, 4]), stored(token_ids=[[1, 2]] * 4), stored(token_ids=[-1] * 128), stored(block_size=16)],
)
def test_hashes_that_are_not_ours_are_never_used(odd: dict[str, Any]) -> None:
    followed = Followed()
    followed.take(odd)
    followed.take(stored())

    assert not followed.state.usable


def test_adapters_blocks_do_not_count() -> None:
    followed = Followed()
    followed.take(stored(lora_id=1))

    assert followed.match() == 0


def test_messages_that_came_by_replay_are_old_when_they_come_again_and_no_others() -> None:
    followed = Followed()
    followed.take(stored())
    followed.take(stored())
    followed.feed.replayed(2)
    old = [followed.feed.is_old(sequence) for sequence in (0, 1, 2)]
    followed.take(stored())

    assert old == [True, True, False]
    assert not followed.feed.is_old(0)


def test_a_damaged_message_is_refused_and_counted() -> None:
    followed = Followed()
    with pytest.raises(ValueError, match="not a KV event message"):
        followed.feed.take(7, b"\x00")

    assert followed.feed.expected == 8
