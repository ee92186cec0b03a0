"""What expected_ttft knows of one worker: work booked there, KV memory in use, its speed, and an image of its cache.

Changes only through the events that expected_ttft hands on; the queries read. All times are of the events' clock,
which may jump: elapsed time counts only where it can be true. Not here: the cost of a decision (expected_ttft).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from router.policies.expected_ttft_rate import PrefillRate
from router.prefix.cache_image import CacheImage, Entry, Use
from router.types import LoadReport, RequestId

STEP_TOKENS = 8192
"""Prompt tokens that SGLang computes in one step (its default chunked_prefill_size on large GPUs)."""
SAME_STEP_S = 0.003
"""First tokens no further apart than this came from the same prefill step: one decode step takes longer."""
SETTLED_S = 0.25
"""A load report may miss requests sent to the worker less than this before it."""
MOST_EVICTED = 8192
"""Evicted prompts remembered per worker, at most."""
DRAG_PRIOR_S = 2.0
"""Seconds of booked work, taken as long as booked, that what is seen of a worker's drag is weighed against."""
LONGEST_S = 600.0
"""No observation of one request's progress counts for more."""
LOST_S = 30.0
"""A worker that has reported nothing running or waiting for so long has answered, or lost, whatever was sent to it."""


class Booking:
    """One request on one worker, from its dispatch to its end. Written by WorkerBook only."""

    __slots__ = (
        "answer_tokens", "cached_tokens", "dispatched_s", "entry", "evicted_before", "features", "first_s",
        "own_s", "prompt_tokens", "request_id", "stream", "use",
    )  # fmt: skip

    def __init__(self, request_id: RequestId, use: Use, dispatched_s: float) -> None:
        self.request_id = request_id
        self.use = use
        self.entry: Entry = use.entry
        self.dispatched_s = dispatched_s
        self.first_s: float | None = None
        self.cached_tokens = 0.0
        self.prompt_tokens = 0.0
        self.answer_tokens = 0.0
        self.own_s = 0.0
        self.features = (0.0, 0.0, 0.0, 0.0)
        self.stream = True
        self.evicted_before = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A request as a worker sees it: estimated tokens of its prompt, its blocks, and of the answer to keep room for.

    `told_tokens` is what the worker itself says it has of the prompt (exact mode); None where it says nothing.
    """

    blocks: Sequence[int]
    block_tokens: float
    prompt_tokens: float
    answer_tokens: float
    stream: bool
    told_tokens: float | None = None


class WorkerBook:
    """One worker. `capacity_tokens` is where learning starts until the worker reports its own."""

    def __init__(self, capacity_tokens: float, capacity_blocks: int) -> None:
        self.rate = PrefillRate()
        self.image = CacheImage(capacity_tokens, capacity_blocks, self._note_eviction)
        self.queue: OrderedDict[RequestId, Booking] = OrderedDict()
        self.running: dict[RequestId, Booking] = {}
        self.answers_tokens = 0.0  # room that requests in flight may need for their answers
        self.answer_s = 2.0  # decoding of a mean answer by itself: 300 tokens at 7 ms, until it is learned
        self._decode_step_s = 0.007
        self.evicted: OrderedDict[int, tuple[float, float]] = OrderedDict()  # first block: tokens, time of last use
        self._evicted_tokens = 0.0
        self.unwanted: list[tuple[float, float]] = []  # tokens and times of what nobody asked for; the policy takes it
        self.reports_cache = False
        self._reported_capacity = False
        self._base_capacity = capacity_tokens
        self._factor = 1.0
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

    def backlog_s(self, now_s: float) -> float:
        """Seconds until prefill booked before would be done. Work that is overdue counts until its first token.

        A booked second counts for as long as one has lately taken while others waited, if that is longer: memory that
        was full, or prompts that were no longer cached when their turn came.
        """
        waiting_s = self._queued_s - self._credit_s
        if waiting_s > 0.0 and self.queue:
            head = next(iter(self.queue.values()))
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

    def memory_wait_s(self, short_tokens: float) -> float:
        """Seconds of decoding until enough running requests have ended for `short_tokens` to be free, besides the
        prefill that comes first: SGLang prefills whenever it can, so a memory full of running requests is free again
        after about as much decoding as a mean answer takes.
        """
        if short_tokens <= 0.0 or not (self.queue or self.running):
            return 0.0
        return short_tokens / self.image.capacity_tokens * self.answer_s

    def displaced(self, new_tokens: float) -> tuple[float, float]:
        """Seconds of prefill to compute again what would be evicted for `new_tokens` more, and its last use."""
        image = self.image
        over_tokens = image.size_tokens + new_tokens - image.capacity_tokens
        oldest = image.oldest()
        if over_tokens <= 0.0 or oldest is None:
            return 0.0, 0.0
        if over_tokens > new_tokens:
            over_tokens = new_tokens
        costs = self.rate.costs
        return over_tokens * (costs[1] + costs[2] * oldest.end * oldest.block_tokens), oldest.used_s

    # -- what happened -------------------------------------------------------------------------------------------

    def dispatched(self, request_id: RequestId, demand: Demand, at_s: float) -> Booking:
        """Book a request that was sent here."""
        self._assume_read(at_s)
        blocks, block_tokens = demand.blocks, demand.block_tokens
        prompt_tokens = max(demand.prompt_tokens, 1.0)
        use = self.image.use(blocks, block_tokens, max(0.0, prompt_tokens - len(blocks) * block_tokens), at_s)
        booking = Booking(request_id, use, at_s)
        booking.stream = demand.stream
        booking.prompt_tokens = prompt_tokens
        told = demand.told_tokens
        booking.cached_tokens = min(use.found_blocks * block_tokens if told is None else told, prompt_tokens - 1.0)
        booking.answer_tokens = demand.answer_tokens
        new_tokens = prompt_tokens - booking.cached_tokens
        booking.features = self.rate.features(new_tokens, booking.cached_tokens)
        booking.own_s = sum(booking.features)
        if not self.queue:
            self._since_s = at_s
            self._queued_s = 0.0
            self._credit_s = 0.0
        self._idle_since_s = None
        self.queue[request_id] = booking
        self._queued_s += booking.own_s
        self.answers_tokens += booking.answer_tokens
        return booking

    def first_token(self, booking: Booking, at_s: float) -> None:
        """Its prefill is done, and with it all that came before it."""
        if booking.first_s is not None or booking.request_id not in self.queue:
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
        self.running[booking.request_id] = booking
        self.image.reuse(booking.entry, at_s)

    def ended(self, booking: Booking, at_s: float, answer_tokens: float, *, computed: bool) -> None:
        """It is over. `computed`: its prompt was read, and stays cached with `answer_tokens` of answer."""
        if booking.request_id in self.queue:
            self._dequeue(booking)
            self._since_s = max(self._since_s, at_s) if computed else self._since_s
        self.running.pop(booking.request_id, None)
        self.answers_tokens = max(0.0, self.answers_tokens - booking.answer_tokens)
        if not self.queue and not self.running:
            self.answers_tokens = 0.0
        if computed:
            partial = booking.prompt_tokens - len(booking.entry.blocks) * booking.entry.block_tokens
            self.image.reuse(booking.entry, at_s)
            self.image.grow(booking.entry, max(0.0, partial) + answer_tokens)
            if booking.first_s is not None and booking.stream and answer_tokens > 8:
                self._measure_decode(at_s - booking.first_s, answer_tokens)
        else:
            self.image.cut(booking.entry)
        self.image.release(booking.entry)

    def cached_report(self, booking: Booking, cached_tokens: float, block_tokens: float, slack_tokens: float) -> None:
        """The worker says how much of the prompt it had. Corrects the image and what is believed of its size."""
        if cached_tokens > 0:
            self.reports_cache = True
        expected = min(booking.use.found_blocks * block_tokens, booking.prompt_tokens)
        if cached_tokens < expected - slack_tokens and self.reports_cache:
            keep = int(cached_tokens / block_tokens)
            tick = next((used_at for end, used_at, _ in booking.use.before if end > keep), 0)
            if tick:
                self.image.forget_until(tick)
                self._resize(shrink=True)
        elif cached_tokens > expected + slack_tokens and booking.evicted_before:
            self._resize(shrink=False)

    def load_reported(self, report: LoadReport, at_s: float) -> None:
        """The worker's own account. Its capacity is believed; waiting work that is not ours is added, and work that it
        does not know of any more is taken off.
        """
        if 1024 <= report.capacity_tokens <= 10**9 and report.capacity_tokens != self._base_capacity:
            self._base_capacity = float(report.capacity_tokens)
            self._factor = min(self._factor, 1.0) if self._reported_capacity else 1.0
            self._reported_capacity = True
            self._resize(shrink=None)
        if report.running or report.waiting:
            self._idle_since_s = None
        elif self._idle_since_s is None:
            self._idle_since_s = at_s
        self._foreign_s = self._credit_s = 0.0
        if report.waiting_uncached_tokens is None or not 0 <= report.waiting_uncached_tokens <= 10**9:
            return
        older = [one for one in self.queue.values() if at_s - one.dispatched_s >= SETTLED_S]
        booked_tokens = sum(one.prompt_tokens - one.cached_tokens for one in self.queue.values())
        unknown_tokens = report.waiting_uncached_tokens - booked_tokens - STEP_TOKENS
        if unknown_tokens > 0:
            self._foreign_s, self._foreign_at_s = unknown_tokens * self.token_s(), at_s
        elif report.waiting == 0 and report.waiting_uncached_tokens == 0 and older:
            # All of it is in the step under way, or done: one step of the longest prompt at most is left.
            left_s = max(one.own_s * min(1.0, 2 * STEP_TOKENS / one.prompt_tokens) for one in older)
            self._credit_s = max(0.0, sum(one.own_s for one in older) - left_s)
            self._since_s = at_s

    def lost(self, at_s: float) -> list[RequestId]:
        """Requests whose end we have missed: the worker has reported idleness for long, and got nothing since."""
        if self._idle_since_s is None or at_s - self._idle_since_s < LOST_S:
            return []
        return [*self.queue, *self.running]

    def cache_cleared(self) -> None:
        """The image starts empty; speed and booked work stay."""
        self.image.clear()
        self.evicted.clear()
        self._evicted_tokens = 0.0

    def token_s(self) -> float:
        """Seconds per uncached token of a middling prompt."""
        _, token, pair, _ = self.rate.costs
        return token + pair * STEP_TOKENS / 2

    # -- inside --------------------------------------------------------------------------------------------------

    def _assume_read(self, at_s: float) -> None:
        """An answer that is not streamed comes whole: nothing tells when its prompt was read, so booked time does."""
        while self.queue:
            head = next(iter(self.queue.values()))
            read_s = max(self._since_s, head.dispatched_s) + head.own_s
            if head.stream or read_s > at_s:
                return
            self._dequeue(head)
            self._since_s = read_s
            self._group_start_s = None
            self.running[head.request_id] = head

    def _dequeue(self, booking: Booking) -> None:
        del self.queue[booking.request_id]
        self._queued_s = max(0.0, self._queued_s - booking.own_s) if self.queue else 0.0

    def _measure(self, booking: Booking, at_s: float) -> None:
        """Learn the speed from the time between the first tokens of consecutive steps."""
        running_tokens = sum(one.prompt_tokens + one.answer_tokens for one in self.running.values())
        if running_tokens + booking.prompt_tokens > 0.9 * self.image.capacity_tokens:  # it may have waited for memory
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
        self._decode_step_s *= 0.9875 if step_s < self._decode_step_s else 1.0042
        self.answer_s += 0.05 * (self._decode_step_s * min(answer_tokens, 16_384.0) - self.answer_s)

    def _resize(self, *, shrink: bool | None) -> None:
        low, high = (0.5, 1.2) if self._reported_capacity else (0.02, 50.0)
        if shrink is not None:
            self._factor *= 0.97 if shrink else 1.03
        if shrink and not self._reported_capacity and self.image.size_tokens > 0.0:
            target = self.image.size_tokens / self._base_capacity
            self._factor -= 0.3 * max(0.0, self._factor - target)
        self._factor = max(low, min(high, self._factor))
        self.image.capacity_tokens = self._base_capacity * self._factor

    def would_have_known(self, blocks: Sequence[int]) -> bool:
        """Whether more of this prompt would be matched if the image were larger. Reads only."""
        found = self.image.match(blocks)
        return found < len(blocks) and blocks[found] in self.evicted

    def asked_again(self, block: int) -> tuple[float, float] | None:
        """Whether an entry that starts here was evicted: its tokens and the time of its last use. It is forgotten."""
        gone = self.evicted.pop(block, None)
        if gone is not None:
            self._evicted_tokens -= gone[0]
        return gone

    def _note_eviction(self, entry: Entry) -> None:
        """Remember what went, for about two more turnovers of the cache, to see whether it is asked for again."""
        block = entry.blocks[entry.first - entry.base]
        self.asked_again(block)
        self.evicted[block] = (entry.tokens, entry.used_s)
        self._evicted_tokens += entry.tokens
        while self._evicted_tokens > 2 * self.image.capacity_tokens or len(self.evicted) > MOST_EVICTED:
            _, gone = self.evicted.popitem(last=False)
            self._evicted_tokens -= gone[0]
            self.unwanted.append(gone)
