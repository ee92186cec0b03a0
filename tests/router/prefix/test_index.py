"""One trie per worker: what is forgotten of one stays known of the others."""

from __future__ import annotations

from router.prefix.index import PrefixIndex
from router.types import WorkerId

ONE, TWO = WorkerId("one"), WorkerId("two")


def test_what_one_worker_has_lost_of_a_prompt_is_forgotten_of_it_alone() -> None:
    index = PrefixIndex(capacity_blocks=100)
    for worker in (ONE, TWO):
        index.insert(worker, [1, 2, 3, 4])

    assert index.truncate(ONE, [1, 2, 3, 4], 1) == 3
    assert index.truncate(WorkerId("unknown"), [1, 2, 3, 4], 1) == 0
    assert (index.size_blocks(ONE), index.size_blocks(TWO)) == (1, 4)
    assert index.workers() == (ONE, TWO)
