"""What expected_ttft knows of one worker: work booked there, KV memory in use, its speed, and an image of its cache.

Changes only through the events that expected_ttft hands on; the queries read. All times are of the events' clock,
which may jump: elapsed time counts only where it can be true. Not here: what is believed of the cache
(expected_ttft_cache), which worker is chosen (expected_ttft). Long, because all of it changes together at each event.
"""

from __future__ import annotations

from typing import Final

from router.compiled import mypyc_attr
from router.policies.expected_ttft_cache import CacheBelief
from router.policies.expected_ttft_config import ExpectedTtftConfig
from router.policies.expected_ttft_learned import Wanted
from router.policies.expected_ttft_rate import PrefillRate
from router.prefix.block_hash import Block
from router.prefix.block_sizes import units_until
from router.prefix.cache_image import Use
from router.records import RoutingRequest
from router.types import LoadReport, RequestId, WorkerId

STEP_TOKENS: Final = 8192
"""Prompt tokens that SGLang computes in one step (its default chunked_prefill_size on large GPUs)."""
SAME_STEP_S: Final = 0.003
"""First tokens no further apart than this came from the same prefill step: one decode step takes longer."""
SETTLED_S: Final = 0.25
"""A load report may miss requests sent to the worker less than this before it."""
DRAG_PRIOR_S: Final = 2.0
"""Seconds of booked work, taken as long as booked, that what is seen of a worker's drag is weighed against."""
LONGEST_S: Final = 600.0
"""No observation of one request's progress counts for more."""
LEAST_DELAY: Final = 0.15
"""What delaying an answer counts for while memory is plenty, of what it counts for on a full cache: without it short
prompts crowd where answers run, and on text traffic E2E doubles (docs/tuning.md)."""
LOST_S: Final = 30.0
"""A worker that has reported nothing running or waiting for so long has answered, or lost, whatever was sent to it."""


@mypyc_attr(acyclic=True)
class Weighed:
    """A worker's cost for one request: the five terms in seconds, with the blocks matched there and the tokens expected
    to be cached. `free_s`: until it is free, `wait` and `memory`; `cost_s`: all terms.
    """

    __slots__ = (
        "cost_s", "decodes_s", "displaced_s", "found_blocks", "free_s", "match_tokens", "memory_s", "own_s", "wait_s",
    )  # fmt: skip

    def __init__(
        self, found_blocks: int, match_tokens: float, wait_s: float, memory_s: float, own_s: float, decodes_s: float,
        displaced_s: float,
    ) -> None:  # fmt: skip
        self.found_blocks = found_blocks
        self.match_tokens = match_tokens
        self.wait_s = wait_s
        self.memory_s = memory_s
        self.own_s = own_s
        self.decodes_s = decodes_s
        self.displaced_s = displaced_s
        self.free_s = wait_s + memory_s
        self.cost_s = self.free_s + own_s + decodes_s + displaced_s


@mypyc_attr(acyclic=True)
class Demand:
    """A request as any worker sees it: estimated tokens of a unit, of the prompt, of the answer to keep room for."""

    __slots__ = ("answer_tokens", "blocks", "prompt_tokens", "request", "unit_tokens")

    def __init__(
        self, request: RoutingRequest, unit_tokens: float, prompt_tokens: float, answer_tokens: float
    ) -> None:
        self.request = request
        blocks = request.key.blocks
        self.blocks: list[Block] = blocks if isinstance(blocks, list) else list(blocks)
        self.unit_tokens = unit_tokens
        self.prompt_tokens = prompt_tokens
        self.answer_tokens = answer_tokens

    def tokens_until(self, depth: int) -> float:
        """In the first `depth` blocks of the prompt."""
        return units_until(depth) * self.unit_tokens


@mypyc_attr(acyclic=True)
class Booking:
    """One request on one worker, from its dispatch to its end. Written by WorkerBook only."""

    __slots__ = (
        "answer_tokens", "cached_tokens", "dispatched_s", "evicted_before", "features", "first_s", "own_s",
        "prompt_tokens", "request", "stream", "use", "worker",
    )  # fmt: skip

    def __init__(self, worker: WorkerId, demand: Demand, use: Use, cached_tokens: float, at_s: float) -> None:
        self.worker = worker
        self.request = demand.request
        self.stream = demand.request.stream
        self.prompt_tokens = demand.prompt_tokens
        self.answer_tokens = demand.answer_tokens
        self.cached_tokens = cached_tokens
        self.use = use
        self.evicted_before = False
        self.dispatched_s = at_s
        self.first_s: float | None = None
        self.features = (0.0, 0.0, 0.0, 0.0)
        self.own_s = 0.0


class WorkerBook:
    """One worker. `wanted` is the fleet's: what of evicted prompts is asked for again."""

    __slots__ = (
        "_credit_s", "_decode_weight", "_displaced_weight", "_drained_in_s", "_drained_s", "_foreign_at_s",
        "_foreign_s", "_group_end_s", "_group_start_s", "_group_terms", "_idle_since_s", "_memory_room",
        "_memory_weight", "_queued_s", "_running_tokens", "_since_s", "_wanted", "_worker", "answer_s",
        "answers_tokens", "cache", "decode_step_s", "queue", "rate", "running", "says_waiting", "unstreamed",
    )  # fmt: skip

    def __init__(self, worker: WorkerId, config: ExpectedTtftConfig, wanted: Wanted) -> None:
        self._worker = worker
        self._decode_weight = config.decode_weight  # read for every request, and nearer here
        self._displaced_weight = config.displaced_weight
        self._memory_room = config.memory_room
        self._memory_weight = config.memory_weight
        self._wanted = wanted
        self.rate = PrefillRate()
        self.cache = CacheBelief(float(config.capacity_tokens), config.capacity_blocks)
        self.queue: dict[RequestId, Booking] = {}
        self.running: dict[RequestId, Booking] = {}
        self._running_tokens = 0.0  # of their prompts and answers
        self.unstreamed = 0  # of those in the queue
        self.says_waiting = False  # its last report
        self.answers_tokens = 0.0  # room that requests in flight may need for their answers
        self.answer_s = 2.0  # decoding of a mean answer by itself: 300 tokens at 7 ms, until it is learned
        self.decode_step_s = 0.007
        self._queued_s = 0.0
        self._since_s = 0.0
        self._credit_s = 0.0
        self._idle_since_s: float | None = None
        self._drained_s = DRAG_PRIOR_S  # booked prefill done lately, and how long it took
        self._drained_in_s = DRAG_PRIOR_S
        self._foreign_s = 0.0
        self._foreign_at_s = 0.0
        self._group_start_s: float | None = None
        self._group_end_s = 0.0
        self._group_terms = (0.0, 0.0, 0.0, 0.0)

    # -- reading ------------------------------------------------------------------------------------------------

    def weigh(self, demand: Demand, told_tokens: float | None, now_s: float) -> Weighed:
        """What the request would cost here. `told_tokens`: what the worker itself says it has of it (exact mode)."""
        image = self.cache.image
        prompt_tokens, answer_tokens = demand.prompt_tokens, demand.answer_tokens
        blocks = demand.blocks
        found = image.match(blocks) if blocks else 0
        if told_tokens is not None:
            match_tokens = self._match_tokens(demand, found, told_tokens)
        else:
            match_tokens = demand.tokens_until(found) if found else 0.0
        if match_tokens < prompt_tokens:
            cached = match_tokens
        else:
            cached, match_tokens = prompt_tokens - 1.0, prompt_tokens
        new = prompt_tokens - cached
        own_s = self.rate.seconds(new, cached)
        queue, running = self.queue, self.running
        wait_s = self._backlog_s(now_s) if queue or self._foreign_s else 0.0
        memory_s = displaced_s = 0.0
        capacity = image.capacity_tokens
        used_tokens = image.held_tokens + self.answers_tokens
        short_tokens = used_tokens + prompt_tokens + answer_tokens - self._memory_room * capacity
        if short_tokens > 0.0 and (queue or running):
            locked_tokens = demand.tokens_until(image.locked(blocks, found))
            if short_tokens > locked_tokens:
                memory_s = self._memory_weight * self._memory_wait_s(short_tokens - locked_tokens)
        if image.size_tokens + new + answer_tokens > capacity:
            displaced_s = self._displaced_s(new + answer_tokens, now_s) * self._displaced_weight
        decodes_s = 0.0
        if running:  # answers that are held up give their memory back later, which matters as far as it is scarce
            used = used_tokens / capacity if used_tokens < capacity else 1.0
            decodes_s = own_s * float(len(running)) * (LEAST_DELAY + used * used) * self._decode_weight
        return Weighed(found, match_tokens, wait_s, memory_s, own_s, decodes_s, displaced_s)

    def _match_tokens(self, demand: Demand, found: int, told_tokens: float) -> float:
        """Tokens that will be cached when the prompt is read: what the worker says, and what requests in flight there
        bring.
        """
        brought = self.cache.image.locked(demand.blocks, found) if found else 0
        return min(max(demand.tokens_until(brought), told_tokens), demand.prompt_tokens)

    def _backlog_s(self, now_s: float) -> float:
        """Seconds until prefill booked before would be done. Work that is overdue counts until its first token.

        A booked second counts for as long as one has lately taken while others waited, if that is longer: memory that
        was full, or prompts that were no longer cached when their turn came.
        """
        waiting_s = self._queued_s - self._credit_s
        head = self._head()
        if head is not None and waiting_s > 0.0:
            served_s = now_s - self._since_s
            most_s = head.own_s + self.rate.costs[1] * STEP_TOKENS
            drained_in_s = self._drained_in_s
            if served_s > most_s and head.stream:
                drained_in_s += min(served_s, LONGEST_S) - most_s
                served_s = most_s
            if served_s > 0.0:
                waiting_s -= served_s
            if drained_in_s > self._drained_s:
                waiting_s *= drained_in_s / self._drained_s
        if waiting_s < 0.0:
            waiting_s = 0.0
        if self._foreign_s > 0.0:
            waiting_s += max(0.0, self._foreign_s - max(0.0, now_s - self._foreign_at_s))
        return waiting_s

    def _memory_wait_s(self, short_tokens: float) -> float:
        """Seconds of decoding until enough running requests have ended for `short_tokens` to be free, besides the
        prefill that comes first: SGLang prefills whenever it can, so a memory full of running requests is free again
        after about as much decoding as a mean answer takes.
        """
        return short_tokens / self.cache.image.capacity_tokens * self.answer_s

    def _displaced_s(self, new_tokens: float, now_s: float) -> float:
        """Seconds of prefill to compute again what would be evicted for `new_tokens` more, as far as it is expected to
        be asked for again.
        """
        image = self.cache.image
        over_tokens = image.size_tokens + new_tokens - image.capacity_tokens
        if over_tokens <= 0.0 or (oldest := image.oldest()) is None:
            return 0.0
        if over_tokens > new_tokens:
            over_tokens = new_tokens
        _step, token, pair, _context = self.rate.costs
        again_s = over_tokens * (token + pair * units_until(oldest.end) * oldest.unit_tokens)
        return again_s * self._wanted.share(now_s - oldest.used_s)

    # -- what happened -------------------------------------------------------------------------------------------

    def dispatched(self, demand: Demand, found: int, told_tokens: float | None, at_s: float) -> Booking:
        """Book a request that was sent here, where the image of the cache has the first `found` blocks of it."""
        if self.unstreamed:
            self._assume_read(at_s)
        request, prompt_tokens = demand.request, demand.prompt_tokens
        blocks = demand.blocks
        tail_tokens = prompt_tokens - demand.tokens_until(len(blocks))
        if told_tokens is None:
            cached = demand.tokens_until(found)
        else:
            cached = self._match_tokens(demand, found, told_tokens)
        use = self.cache.image.use(blocks, demand.unit_tokens, max(0.0, tail_tokens), at_s, found)
        if cached > prompt_tokens - 1.0:
            cached = prompt_tokens - 1.0
        booking = Booking(self._worker, demand, use, cached, at_s)
        step_s, token_s, pair_s, context_s = booking.features = self.rate.features(prompt_tokens - cached, cached)
        booking.own_s = step_s + token_s + pair_s + context_s
        if not self.queue:
            self._since_s = at_s
            self._queued_s = 0.0
            self._credit_s = 0.0
        self._idle_since_s = None
        self.queue[request.request_id] = booking
        self.unstreamed += not booking.stream
        self._queued_s += booking.own_s
        self.answers_tokens += booking.answer_tokens
        return booking

    def first_token(self, booking: Booking, at_s: float) -> None:
        """Its prefill is done, and with it all that came before it."""
        if booking.first_s is not None or booking.request.request_id not in self.queue:
            return
        if booking.stream:
            self._measure(booking, at_s)
            took_s = max(0.0, min(at_s - max(self._since_s, booking.dispatched_s), LONGEST_S))
            self._drained_in_s = 0.9 * self._drained_in_s + 0.1 * DRAG_PRIOR_S + took_s
            self._drained_s = 0.9 * self._drained_s + 0.1 * DRAG_PRIOR_S + booking.own_s
        self._dequeue(booking)
        self._since_s = at_s
        self._credit_s = 0.0
        booking.first_s = at_s
        self._run(booking)
        self.cache.image.reuse(booking.use.entry, at_s)

    def ended(self, booking: Booking, at_s: float, answer_tokens: float, *, computed: bool) -> None:
        """It is over. `computed`: its prompt was read, and stays cached with `answer_tokens` of answer."""
        if self.running.pop(booking.request.request_id, None) is not None:
            self._running_tokens -= booking.prompt_tokens + booking.answer_tokens
        elif booking.request.request_id in self.queue:
            self._dequeue(booking)
            if computed and at_s > self._since_s:
                self._since_s = at_s
        self.answers_tokens = max(0.0, self.answers_tokens - booking.answer_tokens)
        if not self.running:
            self._running_tokens = 0.0
            if not self.queue:
                self.answers_tokens = 0.0
        image, entry = self.cache.image, booking.use.entry
        if computed:
            partial = booking.prompt_tokens - units_until(len(entry.blocks)) * entry.unit_tokens
            image.reuse(entry, at_s)
            image.grow(entry, max(0.0, partial) + answer_tokens)
            if booking.first_s is not None and booking.stream and answer_tokens > 8:
                self._measure_decode(at_s - booking.first_s, answer_tokens)
        else:
            image.cut(entry)
        image.release(entry)

    def cached_report(self, booking: Booking, cached_tokens: float, unit_tokens: float, slack_tokens: float) -> None:
        """The worker says how much of the prompt it had."""
        expected_tokens = min(units_until(booking.use.found_blocks) * unit_tokens, booking.prompt_tokens)
        self.cache.cached_reported(
            booking.use, cached_tokens, expected_tokens, unit_tokens, slack_tokens,
            evicted_before=booking.evicted_before,
        )  # fmt: skip

    def load_reported(self, report: LoadReport, at_s: float) -> None:
        """The worker's own account. Its capacity is believed; waiting work that is not ours is added, and work that it
        does not know of any more is taken off.
        """
        self.cache.capacity_reported(report.capacity_tokens)
        self.says_waiting = report.waiting > 0
        if report.running or report.waiting:
            self._idle_since_s = None
        elif self._idle_since_s is None:
            self._idle_since_s = at_s
        self._foreign_s = self._credit_s = 0.0
        if report.waiting_uncached_tokens is None or not 0 <= report.waiting_uncached_tokens <= 10**9:
            return
        older = [one for one in self.queue.values() if at_s - one.dispatched_s >= SETTLED_S]
        booked_tokens = sum((one.prompt_tokens - one.cached_tokens for one in self.queue.values()), 0.0)
        unknown_tokens = report.waiting_uncached_tokens - booked_tokens - STEP_TOKENS
        if unknown_tokens > 0:
            self._foreign_s, self._foreign_at_s = unknown_tokens * self.token_s(), at_s
        elif report.waiting == 0 and report.waiting_uncached_tokens == 0 and older:
            # All of it is in the step under way, or done: one step of the longest prompt at most is left.
            left_s = max(one.own_s * min(1.0, 2 * STEP_TOKENS / one.prompt_tokens) for one in older)
            self._credit_s = max(0.0, sum((one.own_s for one in older), 0.0) - left_s)
            self._since_s = at_s

    def lost(self, at_s: float) -> list[RequestId]:
        """Requests whose end we have missed: the worker has reported idleness for long, and got nothing since."""
        if self._idle_since_s is None or at_s - self._idle_since_s < LOST_S:
            return []
        return [*self.queue, *self.running]

    def token_s(self) -> float:
        """Seconds per uncached token of a middling prompt."""
        _, token, pair, _ = self.rate.costs
        return token + pair * STEP_TOKENS / 2

    # -- inside --------------------------------------------------------------------------------------------------

    def _assume_read(self, at_s: float) -> None:
        """An answer that is not streamed comes whole: nothing tells when its prompt was read, so booked time does."""
        while self.unstreamed and (head := self._head()) is not None:
            read_s = max(self._since_s, head.dispatched_s) + head.own_s
            if head.stream or read_s > at_s:
                return
            self._dequeue(head)
            self._since_s = read_s
            self._group_start_s = None
            self._run(head)

    def _head(self) -> Booking | None:
        """The request booked longest of those in the queue. A loop, as `next(iter(...))` makes objects, and this is
        asked of every worker of a decision.
        """
        for booking in self.queue.values():
            return booking
        return None

    def _dequeue(self, booking: Booking) -> None:
        del self.queue[booking.request.request_id]
        self.unstreamed -= not booking.stream
        self._queued_s = max(0.0, self._queued_s - booking.own_s) if self.queue else 0.0

    def _run(self, booking: Booking) -> None:
        self.running[booking.request.request_id] = booking
        self._running_tokens += booking.prompt_tokens + booking.answer_tokens

    def _measure(self, booking: Booking, at_s: float) -> None:
        """Learn the speed from the time between the first tokens of consecutive steps."""
        if self._running_tokens + booking.prompt_tokens > 0.9 * self.cache.image.capacity_tokens:  # for memory, perhaps
            self._group_start_s = None
            self._group_end_s = at_s
            return
        if self._group_start_s is not None and 0.0 <= at_s - self._group_end_s <= SAME_STEP_S:
            one, two, three, four = self._group_terms
            _, token, pair, context = booking.features
            self._group_terms = (one, two + token, three + pair, max(four, context))
        else:
            if self._group_start_s is not None:
                self.rate.learn(self._group_terms, self._group_end_s - self._group_start_s)
            self._group_start_s = max(booking.dispatched_s, self._group_end_s)
            if self._group_start_s > at_s:  # the clock jumped
                self._group_start_s = None
            self._group_terms = booking.features
        self._group_end_s = at_s

    def _measure_decode(self, took_s: float, answer_tokens: float) -> None:
        """Learn how long a decode step takes: of what answers show, the lower quarter, for the rest was held up."""
        step_s = took_s / answer_tokens
        if not 1e-5 < step_s < 10.0:
            return
        self.decode_step_s *= 0.9875 if step_s < self.decode_step_s else 1.0042
        self.answer_s += 0.05 * (self.decode_step_s * min(answer_tokens, 16_384.0) - self.answer_s)
