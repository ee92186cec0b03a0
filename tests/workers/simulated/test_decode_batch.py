"""The decode batch against one that counts every member in every iteration."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from workers.simulated.decode_batch import DecodeBatch
from workers.simulated.request import EngineRequest
from workers.simulated.request_state import RequestState


def member(index: int, kv_tokens: int, output_tokens: int) -> RequestState:
    request = EngineRequest(rid=str(index), prompt_tokens=kv_tokens, output_tokens=output_tokens, pages=())
    state = RequestState(request)
    state.kv_tokens = kv_tokens
    state.produced = 1
    return state


def naive_pages_needed(kv_tokens: list[int], page_size: int, iterations: int) -> int:
    return sum((kv + done) % page_size == 0 for kv in kv_tokens for done in range(iterations))


@given(
    page_size=st.integers(1, 8),
    joins=st.lists(st.tuples(st.integers(1, 40), st.integers(2, 40), st.integers(0, 5), st.booleans()), max_size=12),
    iterations=st.integers(1, 30),
)
def test_counts_agree_with_a_member_by_member_count(
    page_size: int, joins: list[tuple[int, int, int, bool]], iterations: int
) -> None:
    batch = DecodeBatch(page_size)
    naive: dict[str, list[int]] = {}  # id -> [KV tokens, tokens left to make]

    def advance(wanted: int) -> None:
        steps = min(wanted, batch.until_finish()) if naive else 0
        if steps == 0:
            return
        finished = {state.request.rid for state in batch.advance(steps)}
        for counts in naive.values():
            counts[0] += steps
            counts[1] -= steps
        assert finished == {rid for rid, (_, left) in naive.items() if left == 0}
        for rid in finished:
            del naive[rid]

    for index, (kv_tokens, output_tokens, between, leaves) in enumerate(joins):
        state = member(index, kv_tokens, output_tokens)
        batch.add(state)
        naive[str(index)] = [kv_tokens, output_tokens - 1]
        advance(between)
        if leaves and str(index) in naive:
            batch.remove(state)
            assert state.kv_tokens == naive.pop(str(index))[0]
        kvs = [kv for kv, _ in naive.values()]
        assert batch.context_tokens == sum(kvs)
        assert batch.pages_needed(iterations) == naive_pages_needed(kvs, page_size, iterations)
        assert [one.request.rid for one in batch] == list(naive)
        if naive:
            assert batch.until_finish() == min(left for _, left in naive.values())


def test_a_member_that_left_and_came_back_finishes_once_and_when_it_has_made_all() -> None:
    batch = DecodeBatch(4)
    state = member(0, 7, 10)
    batch.add(state)
    batch.advance(3)
    batch.remove(state)
    assert (state.produced, state.kv_tokens) == (4, 10)
    batch.add(state)
    assert batch.until_finish() == 6
    assert batch.advance(6) == [state]
    assert (state.produced, state.kv_tokens, len(batch)) == (10, 16, 0)
