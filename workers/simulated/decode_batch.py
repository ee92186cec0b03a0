"""The requests that decode together: one token each per iteration, in constant time however many they are.

Many iterations can be taken at once, as long as no member finishes among them. Knows counts; memory and time are the
engine's. Called by engine.py.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from workers.simulated.request_state import RequestState


class DecodeBatch:
    """Members by id, in the order in which they joined. `iterations` counts those done since the start."""

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._members: dict[str, RequestState] = {}
        self._finishes: list[tuple[int, int, RequestState]] = []  # (iteration, tie-break, member); stale ones stay
        self._joins = 0
        # A member whose KV fills its last page before iteration i needs a page then; _turns[i % page size] counts them.
        self._turns = [0] * page_size
        self.iterations = 0
        self.context_tokens = 0
        self._contexts: list[tuple[int, int, RequestState]] = []  # (-KV tokens at iteration 0, tie-break, member)

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[RequestState]:
        return iter(self._members.values())

    def __contains__(self, rid: str) -> bool:
        return rid in self._members

    def add(self, state: RequestState) -> None:
        """Lets a request with output left to make decode from the next iteration on."""
        state.joined_at = self.iterations
        state.finish_at = self.iterations + state.request.output_tokens - state.produced
        self._members[state.request.rid] = state
        self._turns[(self.iterations - state.kv_tokens) % self._page_size] += 1
        self.context_tokens += state.kv_tokens
        self._joins += 1
        heapq.heappush(self._finishes, (state.finish_at, self._joins, state))
        heapq.heappush(self._contexts, (self.iterations - state.kv_tokens, self._joins, state))

    def remove(self, state: RequestState) -> None:
        """Takes a member out, brought up to date."""
        self.settle(state)
        del self._members[state.request.rid]
        self._turns[(self.iterations - state.kv_tokens) % self._page_size] -= 1
        self.context_tokens -= state.kv_tokens

    def settle(self, state: RequestState) -> None:
        """Brings a member's `produced` and `kv_tokens` up to date."""
        done = self.iterations - state.joined_at
        state.produced += done
        state.kv_tokens += done
        state.joined_at = self.iterations

    @property
    def longest_tokens(self) -> int:
        """KV tokens of the member that has most. The batch must not be empty."""
        while True:
            offset, _, state = self._contexts[0]
            if self._members.get(state.request.rid) is state and state.joined_at - state.kv_tokens == offset:
                return self.iterations - offset
            heapq.heappop(self._contexts)

    def produced(self, state: RequestState) -> int:
        """Output tokens of a member so far."""
        return state.produced + self.iterations - state.joined_at

    def until_finish(self) -> int:
        """Iterations until the first member finishes. The batch must not be empty."""
        while not self._current(self._finishes[0]):
            heapq.heappop(self._finishes)
        return self._finishes[0][0] - self.iterations

    def pages_needed(self, iterations: int) -> int:
        """New pages that so many iterations take."""
        rounds, rest = divmod(iterations, self._page_size)
        first = self.iterations % self._page_size
        window = sum(self._turns[first : first + rest])
        beyond = first + rest - self._page_size
        if beyond > 0:
            window += sum(self._turns[:beyond])
        return rounds * len(self._members) + window

    def advance(self, iterations: int) -> list[RequestState]:
        """Does so many iterations, at most `until_finish`. Removes and returns the members that have finished."""
        self.iterations += iterations
        self.context_tokens += iterations * len(self._members)
        finished = []
        while self._finishes and self._finishes[0][0] <= self.iterations:
            entry = heapq.heappop(self._finishes)
            if self._current(entry):
                self.remove(entry[2])
                finished.append(entry[2])
        return finished

    def _current(self, entry: tuple[int, int, RequestState]) -> bool:
        finish_at, _, state = entry
        return self._members.get(state.request.rid) is state and state.finish_at == finish_at
