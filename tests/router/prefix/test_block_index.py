"""The block index agrees with a set of pages kept by brute force, whatever is stored, removed and asked."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from router.prefix.block_index import BlockIndex
from router.prefix.page_hash import page_hashes
from router.types import WorkerId

A, B = WorkerId("a"), WorkerId("b")
prompts = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=4)
steps = st.lists(
    st.tuples(st.sampled_from(["store", "evict", "clear"]), st.sampled_from([A, B]),
              st.lists(st.integers(0, 2), min_size=1, max_size=8)),
    max_size=20,
)  # fmt: skip


def marks(tokens: list[int]) -> list[tuple[int, int]]:
    """Every page of one token is a mark here."""
    return [(place + 1, value) for place, value in enumerate(page_hashes(tokens, 1))]


@settings(deadline=None)
@given(steps, prompts)
def test_matches_are_those_of_the_pages_that_are_there(
    history: list[tuple[str, WorkerId, list[int]]], asked: list[list[int]]
) -> None:
    index = BlockIndex()
    held: dict[WorkerId, set[tuple[int, ...]]] = {A: set(), B: set()}  # pages, each named by its whole path
    for what, worker, tokens in history:
        paths = [tuple(tokens[: end + 1]) for end in range(len(tokens))]
        if what == "store":
            index.store(worker, [value for _, value in marks(tokens)])
            held[worker].update(paths)
        elif what == "evict":  # as a radix cache does: a page goes only with everything below it
            gone = {path for path in held[worker] if path[: len(tokens)] == tuple(tokens)}
            index.remove(worker, [page_hashes(list(path), 1)[-1] for path in gone])
            held[worker] -= gone
        else:
            index.clear(worker)
            held[worker].clear()

    for tokens in asked:
        for worker in (A, B):
            deep = max((end for end in range(1, len(tokens) + 1) if tuple(tokens[:end]) in held[worker]), default=0)
            assert index.match(worker, marks(tokens)) == deep
    assert [index.size_blocks(worker) for worker in (A, B)] == [len(held[A]), len(held[B])]


def test_what_was_stored_before_anyone_listened_counts_through_what_came_after() -> None:
    index = BlockIndex()
    tokens = list(range(10))
    index.store(A, [value for _, value in marks(tokens)[6:]])

    assert index.match(A, marks(tokens)) == 10
    assert index.match(A, marks(tokens[:6])) == 0


def test_unknown_workers_and_blocks_are_no_error() -> None:
    index = BlockIndex()
    index.remove(A, [1])
    index.store(A, [1])
    index.remove(A, [2])

    assert (index.match(B, [(1, 1)]), index.match(A, []), index.size_blocks(A)) == (0, 0, 1)
