"""Expected-TTFT policy: the worker where this request starts answering soonest, with what it does to others added.

The cost of a worker, in seconds: prefill booked there and not yet served, waiting for KV memory, this request's own
prefill there, and charges for the decodes it delays, for cached prompts it displaces that may be wanted, and for its
work while others wait. Every rate is learned per worker from outcomes (expected_ttft_worker, expected_ttft_rate).
Not here: eligibility (fleet), retries (dispatch). The worth of each term: docs/tuning.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from random import Random

from router.knob import knob, require
from router.policies.expected_ttft_forecast import Forecast
from router.policies.expected_ttft_learned import TokenScale, Wanted
from router.policies.expected_ttft_rate import SETTLED
from router.policies.expected_ttft_worker import Booking, Demand, WorkerBook
from router.prefix.cache_image import CacheImage
from router.types import (
    AttemptFailed,
    CacheCleared,
    Candidate,
    Decision,
    Dispatched,
    Finished,
    FirstToken,
    FleetEvent,
    LoadReported,
    Reason,
    RequestId,
    RoutingRequest,
    WorkerId,
    WorkerJoined,
    WorkerLeft,
    Workers,
)

TERMS = ("wait", "memory", "prefill", "decodes", "displaced", "others")
SAME_COST = 1e-6
"""Costs closer than this, in seconds, are equal."""
SAME_SHARE = 0.1
"""Idle workers that hold as much of a prompt are equal when their costs are this close: learned rates of like GPUs
differ by as much, and without this an idle fleet would send everything to the one whose estimate is lowest."""
Weighed = tuple[int, tuple[float, float, float, float, float]]
"""Matched blocks on a worker, and its terms in seconds but for the last, in the order of TERMS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedTtftConfig:
    capacity_tokens: int = knob(400_000, "tokens of KV cache per worker, until the worker reports or shows its own")
    capacity_blocks: int = knob(262_144, "prompt blocks remembered per worker, at most; about 150 bytes each")
    decode_weight: float = knob(0.1, "charge for delaying one running answer, as a share of the delay")
    others_weight: float = knob(0.5, "charge for the longer waits of requests to come, as a share of them")
    later_weight: float = knob(6.0, "price of a second of work left after those, per request that waits on a worker")
    forecast_length: int = knob(32, "how many requests to come are thought of: as many of the past, come again")
    displaced_weight: float = knob(1.0, "charge for evicting cached tokens, as a share of what they may cost again")
    memory_room: float = knob(0.7, "share of a KV cache in use beyond which requests are expected to wait for memory")
    memory_weight: float = knob(1.0, "how much the wait for KV memory counts")

    def __post_init__(self) -> None:
        require(self.capacity_tokens >= 1024, "must be at least 1,024")
        require(self.capacity_blocks >= 1, "must be at least 1")
        require(0.0 < self.memory_room <= 1.0, "memory_room must be above 0 and at most 1")
        require(1 <= self.forecast_length <= 1024, "forecast_length must be between 1 and 1,024")
        for name in ("decode_weight", "others_weight", "later_weight", "displaced_weight", "memory_weight"):
            require(0.0 <= getattr(self, name) <= 100.0, f"{name} must be between 0 and 100")


class ExpectedTtft:
    def __init__(self, config: ExpectedTtftConfig, rng: Random) -> None:
        self._config = config
        self._rng = rng
        self._books: dict[WorkerId, WorkerBook] = {}
        self._where: dict[RequestId, tuple[WorkerId, Booking, RoutingRequest]] = {}
        self._blank = self._new_book()
        self._scale = TokenScale()
        self._wanted = Wanted()
        self._forecast = Forecast(config.forecast_length)
        self._answer_tokens = 300.0
        self._now_s = 0.0

    # -- deciding ------------------------------------------------------------------------------------------------

    def select(self, request: RoutingRequest, workers: Workers) -> Decision:
        """Pick the lowest cost in O(workers log blocks); equals go to the one with fewer in flight, then at random."""
        weighed = self._weigh(request, workers)
        best = self._cheapest(request, weighed, workers)
        found, terms = weighed[best]
        return Decision(
            worker=workers[best].id,
            reason=Reason.ONLY_WORKER if len(workers) == 1 else Reason.LOWEST_COST,
            match_blocks=found,
            match_tokens=self._match_tokens(request, workers[best].id, found),
            expected_ttft_s=terms[0] + terms[1] + terms[2],
        )

    def candidates(self, request: RoutingRequest, workers: Workers) -> tuple[Candidate, ...]:
        """Every worker as `select` weighs it at this moment. Reads only."""
        weighed = self._weigh(request, workers)
        outlook = _Outlook(self._forecast, weighed, self._config, self._later_price(workers))
        return tuple(
            Candidate(
                worker=worker.id,
                match_tokens=self._match_tokens(request, worker.id, found),
                terms_s=tuple(zip(TERMS, (*terms, outlook.charge_s(index)), strict=True)),
            )
            for index, (worker, (found, terms)) in enumerate(zip(workers, weighed, strict=True))
        )

    def images(self) -> Mapping[WorkerId, CacheImage]:
        """What each worker is believed to hold. For reading only: benchmarks and tests."""
        return {worker: book.image for worker, book in self._books.items()}

    def index_blocks(self) -> dict[WorkerId, int]:
        """Prompt blocks remembered of each worker."""
        return {worker: book.image.size_blocks for worker, book in self._books.items() if book.image.size_blocks}

    def _cheapest(self, request: RoutingRequest, weighed: Sequence[Weighed], workers: Workers) -> int:
        """The lowest cost. The charge for others costs most to know and is never negative, so it is asked for only
        where the rest of the cost leaves a choice.
        """
        if len(weighed) == 1:
            return 0
        outlook = _Outlook(self._forecast, weighed, self._config, self._later_price(workers))
        bases = [sum(terms) for _, terms in weighed]
        costs: dict[int, float] = {}
        least = inf
        for index in sorted(range(len(bases)), key=bases.__getitem__):
            if bases[index] > least + SAME_COST:
                break
            costs[index] = bases[index] + outlook.charge_s(index)
            least = min(least, costs[index])
        best = min(costs, key=costs.__getitem__)
        equal = [index for index, cost in costs.items() if cost <= least + SAME_COST]
        if workers[best].in_flight == 0:
            equal = self._idle_alike(best, request, weighed, workers)
        if len(equal) == 1:
            return equal[0]
        fewest = min(workers[index].in_flight for index in equal)
        return self._rng.choice([index for index in equal if workers[index].in_flight == fewest])

    def _idle_alike(
        self, best: int, request: RoutingRequest, weighed: Sequence[Weighed], workers: Workers
    ) -> list[int]:
        """Workers without a request that are as good as the idle `best`: nothing more is waited for or displaced, they
        hold as much of the prompt, and cost about the same. While the rate of one of two is not known, what they hold
        alone decides: only trying them can change that.
        """
        matches = [self._match_tokens(request, worker.id, weighed[i][0]) for i, worker in enumerate(workers)]
        costs = [sum(terms) for _, terms in weighed]

        def waits_s(index: int) -> float:
            terms = weighed[index][1]
            return terms[0] + terms[1] + terms[4]

        idle = [i for i, worker in enumerate(workers) if worker.in_flight == 0 and waits_s(i) <= waits_s(best)]
        known = [index for index in idle if not self._unknown(workers[index].id)]
        if best not in known:
            best = max(idle, key=matches.__getitem__)
        else:
            best = max([best, *(i for i in idle if i not in known)], key=matches.__getitem__)
        most_s = costs[best] * (1.0 + SAME_SHARE)
        return [
            index
            for index in idle
            if matches[index] == matches[best]
            and (costs[index] <= most_s or index not in known or best not in known)
        ]

    def _unknown(self, worker: WorkerId) -> bool:
        book = self._books.get(worker)
        return book is None or book.rate.observations < SETTLED

    def _later_price(self, workers: Workers) -> float:
        """What a second of work costs those who come later: it grows with the requests that wait on the less busy half
        of the workers. A queue that has its reasons on one worker does not make the others scarce.
        """
        books = self._books
        waiting = sorted(len(books[worker.id].queue) if worker.id in books else 0 for worker in workers)
        half = waiting[: (len(waiting) + 1) // 2]
        return self._config.later_weight * sum(half) / len(half)

    def _weigh(self, request: RoutingRequest, workers: Workers) -> list[Weighed]:
        config = self._config
        demand = self._demand(request)
        now_s = request.at_s if self._now_s < request.at_s < inf else self._now_s
        blocks, block_tokens, prompt_tokens = demand.blocks, demand.block_tokens, demand.prompt_tokens
        need_tokens = prompt_tokens + demand.answer_tokens
        told = request.known_match_tokens
        room = config.memory_room
        weighed: list[Weighed] = []
        for worker in workers:
            book = self._books.get(worker.id, self._blank)
            image = book.image
            found = image.match(blocks)
            cached = told.get(worker.id, found * block_tokens) if told else found * block_tokens
            if cached > prompt_tokens - 1.0:
                cached = prompt_tokens - 1.0
            new = prompt_tokens - cached
            own_s = book.rate.seconds(new, cached)
            memory_s = displaced_s = 0.0
            short_tokens = image.held_tokens + book.answers_tokens + need_tokens - room * image.capacity_tokens
            if short_tokens > 0.0:
                locked_tokens = image.locked(blocks, found) * block_tokens
                memory_s = config.memory_weight * book.memory_wait_s(short_tokens - locked_tokens)
            if image.size_tokens + new + demand.answer_tokens > image.capacity_tokens:
                displaced_s, used_s = book.displaced(new + demand.answer_tokens)
                displaced_s *= config.displaced_weight * self._wanted.share(now_s - used_s)
            decodes_s = own_s * len(book.running) * config.decode_weight
            weighed.append((found, (book.backlog_s(now_s), memory_s, own_s, decodes_s, displaced_s)))
        return weighed

    def _ratio(self, request: RoutingRequest) -> float:
        """True tokens for each one of the key: this prompt's own where they were counted, else the model's, learned."""
        if request.known_prompt_tokens and request.key.prompt_tokens > 0:
            return request.known_prompt_tokens / request.key.prompt_tokens
        return self._scale.of(request.model)

    def _demand(self, request: RoutingRequest, worker: WorkerId | None = None) -> Demand:
        key = request.key
        ratio = self._ratio(request)
        told = None if worker is None or request.known_match_tokens is None else request.known_match_tokens.get(worker)
        limit = request.max_output_tokens
        answer = self._answer_tokens if limit is None else min(float(max(limit, 0)), self._answer_tokens)
        return Demand(
            blocks=key.blocks,
            block_tokens=key.block_tokens * ratio,
            prompt_tokens=max(key.prompt_tokens * ratio, 1.0),
            answer_tokens=answer,
            stream=request.stream,
            told_tokens=told,
        )

    def _match_tokens(self, request: RoutingRequest, worker: WorkerId, found: int) -> float:
        told = request.known_match_tokens
        if told is not None and worker in told:
            return float(told[worker])
        return min(found * request.key.block_tokens, request.key.prompt_tokens) * self._ratio(request)

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
                self._books.setdefault(event.worker, self._new_book())
            case WorkerLeft():
                self._left(event.worker)
            case CacheCleared():
                if event.worker in self._books:
                    self._books[event.worker].cache_cleared()

    def _dispatched(self, event: Dispatched) -> None:
        request, worker = event.request, event.decision.worker
        self._release(request.request_id)
        book = self._books.setdefault(worker, self._new_book())
        demand = self._demand(request, worker)
        evicted_before = book.would_have_known(demand.blocks)
        self._note_wanted(demand.blocks)
        booking = book.dispatched(request.request_id, demand, self._now_s)
        booking.evicted_before = evicted_before
        start = 0
        for end, tick, used_s in booking.use.before:
            if tick:
                self._wanted.learn((end - start) * demand.block_tokens, self._now_s - used_s, again=True)
            start = end
        self._forecast.dispatched(self._now_s, booking.own_s)
        self._where[request.request_id] = (worker, booking, request)

    def _load_reported(self, event: LoadReported) -> None:
        book = self._books.get(event.worker)
        if book is not None:
            book.load_reported(event.load, self._now_s)
            for request_id in book.lost(self._now_s):
                self._release(request_id)

    def _first_token(self, event: FirstToken) -> None:
        known = self._where.get(event.request_id)
        if known is not None and known[0] == event.worker:
            self._books[event.worker].first_token(known[1], self._now_s)

    def _failed(self, event: AttemptFailed) -> None:
        known = self._where.get(event.request_id)
        if known is not None and known[0] == event.worker:
            self._release(event.request_id)

    def _release(self, request_id: RequestId) -> None:
        known = self._where.pop(request_id, None)
        if known is not None:
            self._books[known[0]].ended(known[1], self._now_s, 0.0, computed=False)

    def _finished(self, event: Finished) -> None:
        known = self._where.get(event.request_id)
        if known is None or known[0] != event.worker:
            return
        worker, booking, request = self._where.pop(event.request_id)
        outcome, book = event.outcome, self._books[worker]
        made = outcome.completion_tokens
        answer = float(made) if made is not None and 0 <= made <= 10**6 else 0.0
        if outcome.ok and made is not None:
            self._answer_tokens += 0.02 * (min(answer, 16_384.0) - self._answer_tokens)
        computed = outcome.ok or booking.first_s is not None
        book.ended(booking, self._now_s, answer, computed=computed)
        if not computed:
            return
        ratio = self._scale.learn(request.model, request.key.prompt_tokens, outcome.prompt_tokens)
        cached = outcome.cached_tokens
        if cached is not None and 0 <= cached <= (outcome.prompt_tokens or booking.prompt_tokens * 2):
            block_tokens = request.key.block_tokens * ratio
            slack = block_tokens + 64.0 + 0.05 * cached if ratio != 1.0 else block_tokens
            book.cached_report(booking, float(cached), block_tokens, slack)

    def _note_wanted(self, blocks: Sequence[int]) -> None:
        """Was something evicted, and held nowhere else, that this prompt asks for again?"""
        books = self._books.values()
        depth = max((book.image.match(blocks) for book in books), default=0)
        for book in books:
            gone = book.asked_again(blocks[depth]) if depth < len(blocks) else None
            if gone is not None:
                self._wanted.learn(gone[0], self._now_s - gone[1], again=True)
            while book.unwanted:
                tokens, used_s = book.unwanted.pop()
                self._wanted.learn(tokens, self._now_s - used_s, again=False)

    def _left(self, worker: WorkerId) -> None:
        self._books.pop(worker, None)
        for request_id in [request_id for request_id, known in self._where.items() if known[0] == worker]:
            del self._where[request_id]

    def _new_book(self) -> WorkerBook:
        return WorkerBook(float(self._config.capacity_tokens), self._config.capacity_blocks)


class _Outlook:
    """Charges for others, worked out one by one; workers that are alike are worked out once."""

    __slots__ = ("_before_s", "_charges", "_forecast", "_free_s", "_later_price", "_weighed", "_weight")

    def __init__(
        self, forecast: Forecast, weighed: Sequence[Weighed], config: ExpectedTtftConfig, later_price: float
    ) -> None:
        self._forecast = forecast
        self._weighed = weighed
        self._weight = config.others_weight
        self._later_price = later_price
        self._free_s = [terms[0] + terms[1] for _, terms in weighed]
        self._charges: dict[tuple[float, float], float] = {}
        self._before_s = forecast.waits_s(self._free_s, later_price) if self._weight > 0.0 else 0.0

    def charge_s(self, index: int) -> float:
        if self._weight == 0.0:
            return 0.0
        free_s, own_s = self._free_s[index], self._weighed[index][1][2]
        charge_s = self._charges.get((free_s, own_s))
        if charge_s is None:
            after = self._free_s.copy()
            after[index] = free_s + own_s
            longer_s = self._forecast.waits_s(after, self._later_price) - self._before_s
            charge_s = self._charges[free_s, own_s] = self._weight * max(0.0, longer_s)
        return charge_s
