"""Expected-TTFT policy: the worker where this request starts answering soonest, with what it does to others added.

The cost of a worker, in seconds: prefill booked there and not yet served, waiting for KV memory, this request's own
prefill there, and charges for the decodes it delays and for cached prompts it displaces that may be wanted. What would
wait long is better held and decided later (`room_s`; admission.held_queue says in which order). Every rate is learned
per worker from outcomes (expected_ttft_worker, expected_ttft_rate). Not here: eligibility (fleet), retries (dispatch).
The worth of each term: docs/tuning.md. Long, because what decides and what is learned from events read the same books.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import inf, isfinite
from random import Random
from typing import Any, Final

import msgspec

from router.policies.expected_ttft_config import ExpectedTtftConfig
from router.policies.expected_ttft_learned import TokenScale, Wanted
from router.policies.expected_ttft_rate import SETTLED
from router.policies.expected_ttft_state import Saved, saved_policy, take_up, take_up_shares
from router.policies.expected_ttft_worker import Booking, Demand, Weighed, WorkerBook
from router.prefix.block_hash import Block
from router.prefix.block_sizes import units_of
from router.prefix.cache_image import CacheImage
from router.records import Decision, Dispatched, Finished, FirstToken, FleetEvent, RoutingRequest
from router.types import (
    AttemptFailed,
    CacheCleared,
    Candidate,
    LoadReported,
    Reason,
    RequestId,
    WorkerId,
    WorkerJoined,
    WorkerLeft,
    Workers,
)

__all__ = ["TERMS", "ExpectedTtft", "ExpectedTtftConfig"]

TERMS = ("wait", "memory", "prefill", "decodes", "displaced")
SAME_COST: Final = 1e-6
"""Costs closer than this, in seconds, are equal."""
SAME_SHARE: Final = 0.1
"""Idle workers that hold as much of a prompt are equal when their costs are this close: learned rates of like GPUs
differ by as much, and without this an idle fleet would send everything to the one whose estimate is lowest."""


class ExpectedTtft:
    def __init__(self, config: ExpectedTtftConfig, rng: Random) -> None:
        self._config = config
        self._room_s = config.room_s
        self._rng = rng
        self._books: dict[WorkerId, WorkerBook] = {}
        self._where: dict[RequestId, Booking] = {}
        self._scale = TokenScale()
        self._wanted = Wanted()
        self._blank = self._new_book(WorkerId(""))
        self._answer_tokens = 300.0
        self._now_s = 0.0

    # -- deciding ------------------------------------------------------------------------------------------------

    def select(self, request: RoutingRequest, workers: Workers) -> Decision:
        """Pick the lowest cost in O(workers log blocks); equals go to the one with fewer in flight, then at random."""
        demand = self._demand(request)
        weighed = self._weigh(demand, workers)
        alone = len(weighed) == 1
        best = 0 if alone else self._cheapest(weighed, workers)
        chosen, worker = weighed[best], workers[best].id
        return Decision(
            worker=worker,
            reason=Reason.ONLY_WORKER if alone else Reason.LOWEST_COST,
            match_blocks=chosen.found_blocks,
            match_tokens=chosen.match_tokens,
            expected_ttft_s=chosen.free_s + chosen.own_s,
            expected_wait_s=chosen.free_s,
            hold=0.0 < self._room_s < chosen.free_s and self._is_sure(worker, chosen),
        )

    def _is_sure(self, worker: WorkerId, weighed: Weighed) -> bool:
        """Whether the wait is long even without what is only guessed: a wait for memory, at a worker that has not told
        how much it has, is no reason to keep requests from it, and neither are answers that come whole, whose prefill
        nobody sees end, unless the worker says that requests wait there.
        """
        book = self._books.get(worker, self._blank)
        if book.unstreamed and not book.says_waiting:
            return False
        return book.cache.capacity_is_reported or weighed.wait_s > self._room_s

    def candidates(self, request: RoutingRequest, workers: Workers) -> tuple[Candidate, ...]:
        """Every worker as `select` weighs it at this moment. Reads only."""
        weighed = self._weigh(self._demand(request), workers)
        return tuple(
            Candidate(
                worker=worker.id,
                match_tokens=one.match_tokens,
                terms_s=tuple(
                    zip(TERMS, (one.wait_s, one.memory_s, one.own_s, one.decodes_s, one.displaced_s), strict=True)
                ),
            )
            for worker, one in zip(workers, weighed, strict=True)
        )

    def images(self) -> Mapping[WorkerId, CacheImage]:
        """What each worker is believed to hold. For reading only: benchmarks and tests."""
        return {worker: book.cache.image for worker, book in self._books.items()}

    def index_blocks(self) -> dict[WorkerId, int]:
        """Prompt blocks remembered of each worker."""
        return {worker: image.size_blocks for worker, image in self.images().items() if image.size_blocks}

    def _weigh(self, demand: Demand, workers: Workers) -> list[Weighed]:
        request, now_s = demand.request, self._now_s
        if now_s < request.at_s < inf:
            now_s = request.at_s
        books, blank, told = self._books, self._blank, request.known_match_tokens
        if told is None:
            return [books.get(worker.id, blank).weigh(demand, None, now_s) for worker in workers]
        return [books.get(worker.id, blank).weigh(demand, told.get(worker.id), now_s) for worker in workers]

    def _cheapest(self, weighed: list[Weighed], workers: Workers) -> int:
        """The lowest cost; equals by fewest in flight, then at random."""
        best, least_s = 0, weighed[0].cost_s
        for index, one in enumerate(weighed):
            if one.cost_s < least_s:
                best, least_s = index, one.cost_s
        if workers[best].in_flight == 0:
            equal = self._idle_alike(best, weighed, workers)
        else:
            least_s += SAME_COST
            equal = [index for index, one in enumerate(weighed) if one.cost_s <= least_s]
        if len(equal) == 1:
            return equal[0]
        fewest = min([workers[index].in_flight for index in equal])
        return self._rng.choice([index for index in equal if workers[index].in_flight == fewest])

    def _idle_alike(self, best: int, weighed: list[Weighed], workers: Workers) -> list[int]:
        """Workers without a request that are as good as the idle `best`: nothing more is waited for or displaced, they
        hold as much of the prompt, and cost about the same. While the rate of one of two is not known, what they hold
        alone decides: only trying them can change that.
        """
        most_s = weighed[best].free_s + weighed[best].displaced_s
        idle = [
            i
            for i, one in enumerate(weighed)
            if one.free_s + one.displaced_s <= most_s and not workers[i].in_flight
        ]
        if len(idle) == 1:
            return idle
        matches = {i: weighed[i].match_tokens for i in idle}
        known = [i for i in idle if self._books.get(workers[i].id, self._blank).rate.observations >= SETTLED]
        if best not in known:
            best = max(idle, key=matches.__getitem__)
        elif len(known) < len(idle):
            best = max([best, *(i for i in idle if i not in known)], key=matches.__getitem__)
        most_s = weighed[best].cost_s * (1.0 + SAME_SHARE)
        return [
            i
            for i in idle
            if matches[i] == matches[best] and (weighed[i].cost_s <= most_s or i not in known or best not in known)
        ]

    def _ratio(self, request: RoutingRequest) -> float:
        """True tokens for each one of the key: this prompt's own where they were counted, else the model's, learned."""
        if request.known_prompt_tokens and request.key.prompt_tokens > 0:
            return request.known_prompt_tokens / request.key.prompt_tokens
        return self._scale.of(request.model)

    def _demand(self, request: RoutingRequest) -> Demand:
        key, limit, answer_tokens = request.key, request.max_output_tokens, self._answer_tokens
        if limit is not None and limit < answer_tokens:
            answer_tokens = limit if limit > 0 else 0.0
        ratio = self._ratio(request)
        return Demand(request, key.unit_tokens * ratio, max(1.0, key.prompt_tokens * ratio), answer_tokens)

    # -- over a restart ------------------------------------------------------------------------------------------

    def dump(self, now_s: float) -> dict[str, Any]:
        """What was learned, but for what is under way."""
        books = list(self._books.items())
        saved = saved_policy(books, self._scale, self._wanted, self._answer_tokens, now_s)
        made: dict[str, Any] = msgspec.to_builtins(saved)
        return made

    def load(self, state: dict[str, Any], now_s: float, workers: Collection[WorkerId]) -> None:
        """Take up what `dump` made, for these workers. Raises ValueError for anything else, and then takes nothing."""
        saved = msgspec.convert(state, Saved)
        books = {worker: self._new_book(worker) for worker in workers if worker in saved.workers}
        for worker, book in books.items():
            take_up(book, saved.workers[worker], now_s)
        for worker in books:
            self._left(worker)
        self._books.update(books)
        take_up_shares(self._scale, self._wanted, saved)
        self._answer_tokens = saved.answer_tokens

    # -- learning ------------------------------------------------------------------------------------------------

    def observe(self, event: FleetEvent) -> None:
        """Book, release and learn. Events about unknown requests and workers change nothing."""
        if isfinite(event.at_s):
            self._now_s = event.at_s
        match event:
            case Dispatched():
                self._dispatched(event)
            case FirstToken():
                self._first_token(event)
            case Finished():
                self._finished(event)
            case AttemptFailed():
                self._failed(event)
            case LoadReported():
                self._load_reported(event)
            case WorkerJoined():
                if event.worker not in self._books:
                    self._books[event.worker] = self._new_book(event.worker)
            case WorkerLeft():
                self._left(event.worker)
            case CacheCleared():
                if event.worker in self._books:
                    self._books[event.worker].cache.clear()

    def _dispatched(self, event: Dispatched) -> None:
        request, worker = event.request, event.decision.worker
        if request.request_id in self._where:
            self._release(request.request_id)
        book = self._books.get(worker)
        if book is None:
            book = self._books[worker] = self._new_book(worker)
        demand = self._demand(request)
        blocks, now_s = demand.blocks, self._now_s
        found = book.cache.image.match(blocks)
        evicted_before = book.cache.would_have_known(blocks, found)
        self._note_wanted(blocks, book, found)
        told = request.known_match_tokens
        booking = book.dispatched(demand, found, None if told is None else told.get(worker), now_s)
        booking.evicted_before = evicted_before
        start = 0
        for end, tick, used_s in booking.use.before:
            if tick:
                self._wanted.learn(demand.tokens_until(end) - demand.tokens_until(start), now_s - used_s, again=True)
            start = end
        self._where[request.request_id] = booking

    def _load_reported(self, event: LoadReported) -> None:
        book = self._books.get(event.worker)
        if book is not None:
            book.load_reported(event.load, self._now_s)
            for request_id in book.lost(self._now_s):
                self._release(request_id)

    def _first_token(self, event: FirstToken) -> None:
        booking = self._where.get(event.request_id)
        if booking is not None and booking.worker == event.worker:
            self._books[event.worker].first_token(booking, self._now_s)

    def _failed(self, event: AttemptFailed) -> None:
        booking = self._where.get(event.request_id)
        if booking is not None and booking.worker == event.worker:
            self._release(event.request_id)

    def _release(self, request_id: RequestId) -> None:
        booking = self._where.pop(request_id)
        self._books[booking.worker].ended(booking, self._now_s, 0.0, computed=False)

    def _finished(self, event: Finished) -> None:
        booking = self._where.get(event.request_id)
        if booking is None or booking.worker != event.worker:
            return
        del self._where[event.request_id]
        request, outcome, book = booking.request, event.outcome, self._books[event.worker]
        made = outcome.completion_tokens
        answer = float(made) if made is not None and 0 <= made <= 10**6 else 0.0
        ok = outcome.ok
        if ok and made is not None:
            self._answer_tokens += 0.02 * (min(answer, 16_384.0) - self._answer_tokens)
        computed = ok or booking.first_s is not None
        book.ended(booking, self._now_s, answer, computed=computed)
        if not computed:
            return
        ratio = self._scale.learn(request.model, request.key.prompt_tokens, outcome.prompt_tokens)
        cached = outcome.cached_tokens
        if cached is not None and 0 <= cached <= (outcome.prompt_tokens or booking.prompt_tokens * 2):
            unit_tokens, found = request.key.unit_tokens * ratio, booking.use.found_blocks
            slack = units_of(found + 1) * unit_tokens
            if ratio != 1.0:
                slack += 64.0 + 0.05 * cached
            book.cached_report(booking, float(cached), unit_tokens, slack)

    def _note_wanted(self, blocks: list[Block], book: WorkerBook, found: int) -> None:
        """Was something evicted, and held nowhere else, that this prompt asks for again? `book` has `found` blocks."""
        evicting = [book.cache for book in self._books.values() if book.cache.evicted or book.cache.unwanted]
        if not evicting:
            return
        depth = found
        for other in self._books.values():
            if other is not book:
                depth = max(depth, other.cache.image.match(blocks))
        for cache in evicting:
            if depth < len(blocks) and blocks[depth] in cache.evicted:
                tokens, used_s = cache.asked_again(blocks[depth])
                self._wanted.learn(tokens, self._now_s - used_s, again=True)
            while cache.unwanted:
                tokens, used_s = cache.unwanted.pop()
                self._wanted.learn(tokens, self._now_s - used_s, again=False)

    def _left(self, worker: WorkerId) -> None:
        self._books.pop(worker, None)
        for request_id in [request_id for request_id, booking in self._where.items() if booking.worker == worker]:
            del self._where[request_id]

    def _new_book(self, worker: WorkerId) -> WorkerBook:
        return WorkerBook(worker, self._config, self._wanted)

