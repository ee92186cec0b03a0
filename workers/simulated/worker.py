"""The simulated worker behind its HTTP: prompts in, generations out, over one engine per DP rank.

Plans what will be said, picks the rank, and waits with the client: when the client leaves, its generations are aborted
at once. Called by the API modules through `complete` and `stream`. Not here: HTTP shapes, time (rank.py).
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Sequence

from workers.simulated.calls import Call, Namespace
from workers.simulated.constrained import Unsupported, json_sample, regex_sample
from workers.simulated.errors import Aborted, BadRequest, Unavailable
from workers.simulated.front_end import FrontEnd
from workers.simulated.generation import Generation, Listener, Wanted
from workers.simulated.options import Options
from workers.simulated.rank import Rank
from workers.simulated.reply import Reply
from workers.simulated.tokenizer import Tokenizer
from workers.simulated.writer import Sampling, Writer

Register = Callable[[str, int], None]
"""Told the request id of choice `index` before its generation starts."""

NOTHING = Sampling(max_new_tokens=0)


class SimulatedWorker:
    """One simulated SGLang server. `ranks` run in the server's task group."""

    def __init__(self, options: Options, ranks: Sequence[Rank]) -> None:
        self.options = options
        self.ranks = ranks
        self.tokenizer = Tokenizer()
        self.writer = Writer(
            self.tokenizer,
            seed=options.seed,
            natural_tokens=options.natural_output_tokens,
            stop_early=options.stop_early,
        )
        self._front_end = FrontEnd(options.cost_model)
        self.ready = True
        self._turn = itertools.cycle(range(len(ranks)))
        self._by_rid: dict[str, Generation] = {}

    @property
    def last_output_s(self) -> float:
        """When any engine last produced output, on the monotonic clock."""
        return max(rank.last_output_s for rank in self.ranks)

    async def complete(self, call: Call, reply: Reply) -> list[Generation]:
        """All generations of a call, finished. Raises Aborted when the client leaves or the server gives up on one."""
        generations = await self._start(call, reply, None, None)
        return [await generation.result() for generation in generations]

    async def stream(self, call: Call, reply: Reply, register: Register, listener: Listener) -> list[Generation]:
        """As `complete`, calling `listener` whenever a generation advances; the reply is started before the first."""

        def advance(generation: Generation) -> None:
            if not reply.started:
                reply.start()
            listener(generation)

        generations = await self._start(call, reply, register, advance)
        for generation in generations:
            await generation.done.wait()
        return generations

    def submit_alone(self, prompt: Sequence[int], sampling: Sampling, *, rid: str | None = None) -> Generation:
        """A generation that belongs to no client: health checks."""
        generation = self._plan(
            prompt, sampling, (None, None, None), rid or uuid.uuid4().hex, self._rank(None), 0, None, None
        )
        self._submit(generation, text=False)
        return generation

    def abort(self, rid: str) -> None:
        """Aborts the generations whose id starts with `rid`, if one has exactly that id (as SGLang does)."""
        if rid and rid in self._by_rid:
            for generation in [one for known, one in self._by_rid.items() if known.startswith(rid)]:
                self.ranks[generation.rank].abort(generation)

    def abort_all(self) -> None:
        for generation in list(self._by_rid.values()):
            self.ranks[generation.rank].abort(generation)

    async def _start(
        self, call: Call, reply: Reply, register: Register | None, listener: Listener | None
    ) -> list[Generation]:
        if not self.ready:
            raise Unavailable("The server is starting.")
        self._check(call)
        if call.n > 1:  # SGLang first reads the prompt once, so that the samples share it
            for index, prompt in enumerate(call.prompts):
                first = self._plan(
                    prompt, NOTHING, call.namespaces[index], uuid.uuid4().hex, self._rank(call.rank), 0, None, None
                )
                await self._with_client(reply, [first], text=call.text)
        generations: list[Generation] = []
        for index in range(len(call.prompts) * call.n):
            item, choice = divmod(index, call.n)
            rid = call.rids[index] if call.rids else uuid.uuid4().hex
            if rid in self._by_rid:
                raise BadRequest(f"Duplicate request ID detected: {rid}")
            if register is not None:
                register(rid, index)
            generations.append(
                self._plan(
                    call.prompts[item],
                    call.samplings[item],
                    call.namespaces[item],
                    rid,
                    self._rank(call.rank),
                    choice,
                    call.fixed,
                    listener,
                    call.wanted[item] if call.wanted else None,
                )
            )
        self._watch(reply, generations)
        for generation in generations:
            self._submit(generation, text=call.text)
        return generations

    async def _with_client(self, reply: Reply, generations: Sequence[Generation], *, text: bool) -> None:
        self._watch(reply, generations)
        for generation in generations:
            self._submit(generation, text=text)
            await generation.result()

    def _watch(self, reply: Reply, generations: Sequence[Generation]) -> None:
        """From here on, the client's leaving aborts `generations`. Raises Aborted when it has left already."""
        if reply.closed:
            raise Aborted("Request is disconnected from the client side.")

        def left() -> None:
            for generation in generations:
                self.ranks[generation.rank].abort(generation)

        reply.on_close = left

    def _submit(self, generation: Generation, *, text: bool) -> None:
        self._by_rid[generation.rid] = generation
        generation.on_end = self._forget
        speed = self.options.speed
        ready_s = self._front_end.ready_s(time.monotonic() * speed, len(generation.prompt), text=text)
        self.ranks[generation.rank].submit(generation, ready_s / speed)

    def _forget(self, generation: Generation) -> None:
        self._by_rid.pop(generation.rid, None)

    def _rank(self, wanted: int | None) -> int:
        return next(self._turn) if wanted is None else (wanted if len(self.ranks) > 1 else 0)

    def _check(self, call: Call) -> None:
        """Refuses ranks and prompts that cannot be served, in SGLang's words. Raises BadRequest."""
        ranks = len(self.ranks)
        if call.rank is not None and not 0 <= call.rank < ranks:
            raise BadRequest(f"routed_dp_rank={call.rank} out of range [0, {ranks})")
        context = self.options.context_length
        for prompt, sampling in zip(call.prompts, call.samplings, strict=True):
            length = len(prompt)
            if length >= context:
                raise BadRequest(
                    f"The input ({length} tokens) is longer than the model's context length ({context} tokens)."
                )
            new = sampling.max_new_tokens
            if new is not None and length + new > context:
                raise BadRequest(
                    f"Requested token count exceeds the model's maximum context length of {context} tokens. "
                    f"You requested a total of {length + new} tokens: {length} tokens from the input messages and "
                    f"{new} tokens for the completion. Please reduce the number of tokens in the input messages or "
                    "the completion to fit within the limit."
                )
            if length >= self.options.max_prompt_tokens:
                raise BadRequest(
                    f"Input length ({length} tokens) exceeds the maximum allowed length "
                    f"({self.options.max_prompt_tokens} tokens). Use a shorter input or enable --allow-auto-truncate."
                )

    def _plan(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        namespace: Namespace,
        rid: str,
        rank: int,
        choice: int,
        fixed: str | None,
        listener: Listener | None,
        wanted: Wanted | None = None,
    ) -> Generation:
        limit = max(0, self.options.max_request_tokens - len(prompt) - 1)
        if fixed is None:
            fixed = self._constrained(sampling, choice)
        return Generation(
            rid=rid,
            prompt=prompt,
            plan=self.writer.plan(prompt, sampling, choice, limit, fixed),
            namespace=namespace,
            rank=rank,
            limit_tokens=limit if sampling.max_new_tokens is None else min(limit, sampling.max_new_tokens),
            arrived_s=time.monotonic(),
            listener=listener,
            wanted=wanted,
        )

    def _constrained(self, sampling: Sampling, choice: int) -> str | None:
        """A text that obeys the request's constraint, or None where it has none. Raises BadRequest."""
        seed = self.options.seed * 31 + (sampling.seed or 0) * 7 + choice
        try:
            if sampling.json_schema is not None:
                return json_sample(sampling.json_schema, seed)
            if sampling.regex is not None:
                return regex_sample(sampling.regex, seed)
        except Unsupported as error:
            raise BadRequest(f"Failed to compile grammar: {error}") from error
        return None
