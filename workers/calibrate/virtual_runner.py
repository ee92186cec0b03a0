"""Runs experiments on a simulated engine in virtual time: what a server with this cost model would have done, exactly.

No sockets, no waiting, deterministic. Used to fit (fit.py), to compare without a server, and by tests. The engine and
its front end are those of the simulated worker.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Sequence

from workers.calibrate.experiment import Call, Experiment, Run, Timing
from workers.calibrate.features import FORWARD_END, FORWARD_START
from workers.calibrate.prompts import Segment, length, token_ids
from workers.simulated.cost_model import CostModel
from workers.simulated.engine import Engine, TokenOutput
from workers.simulated.engine_config import EngineConfig
from workers.simulated.front_end import FrontEnd
from workers.simulated.request import EngineRequest, pages_of_tokens

ANSWER_ID = 1 << 31
"""Token ids of answers start here, so that no prompt finds them in the cache."""


class VirtualRunner:
    """One simulated server with a clock of its own. Its cache lives from one experiment to the next."""

    def __init__(self, cost_model: CostModel, config: EngineConfig) -> None:
        self._cost_model = cost_model
        self._config = config
        self._engine = Engine(config, cost_model)

    async def run(self, experiment: Experiment) -> Run:
        """For measuring.run_all."""
        return self.replay(experiment, requests_of(experiment.calls, self._config.page_size), None)

    def replay(
        self, experiment: Experiment, requests: Sequence[EngineRequest], sent_s: Sequence[float] | None
    ) -> Run:
        """The run. With `sent_s`, each call is sent then, whatever it should have waited for."""
        if experiment.flush:
            self._engine = Engine(self._config, self._cost_model)
        play = _Play(self._engine, FrontEnd(self._cost_model), experiment, requests, sent_s)
        play.play()
        return Run(experiment=experiment, timings=tuple(play.timings()))


def requests_of(
    calls: Sequence[Call], page_size: int, prompt_tokens: Sequence[int] | None = None
) -> list[EngineRequest]:
    """What the engine is asked for each call. `prompt_tokens` says how long prompts sent as text really were."""
    requests = []
    for index, call in enumerate(calls):
        prompt = call.prompt
        if call.text and prompt_tokens is not None:
            prompt = (Segment(prompt[0].seed, prompt_tokens[index]),)
        ids = token_ids(prompt)
        answer = array("I", [ANSWER_ID + index]) * call.output_tokens
        requests.append(
            EngineRequest(
                rid=str(index),
                prompt_tokens=length(prompt),
                output_tokens=call.output_tokens,
                pages=pages_of_tokens(ids, answer, page_size),
            )
        )
    return requests


class _Play:
    """One experiment in virtual time."""

    def __init__(
        self,
        engine: Engine,
        front_end: FrontEnd,
        experiment: Experiment,
        requests: Sequence[EngineRequest],
        sent_s: Sequence[float] | None,
    ) -> None:
        self._engine = engine
        self._front_end = front_end
        self._calls = experiment.calls
        self._requests = requests
        count = len(requests)
        self._sent_s = [0.0] * count
        self._token_s: list[list[float]] = [[] for _ in range(count)]
        self._counts: list[list[int]] = [[] for _ in range(count)]
        self._cached = [0] * count
        self._started_s = [0.0] * count
        self._errors: list[str | None] = [None] * count
        self._sends: list[tuple[float, int]] = []
        self._ready: list[tuple[float, int]] = []
        self._waits = [0 if sent_s is not None else len(set(call.after)) for call in self._calls]
        self._followers: list[list[int]] = [[] for _ in range(count)]
        for index, call in enumerate(self._calls):
            if sent_s is not None:
                heapq.heappush(self._sends, (sent_s[index], index))
                continue
            if not call.after:
                heapq.heappush(self._sends, (call.delay_s, index))
            for other in set(call.after):
                self._followers[other].append(index)

    def play(self) -> None:
        now_s = 0.0
        engine = self._engine
        while True:
            if engine.idle:
                due = [heap[0][0] for heap in (self._sends, self._ready) if heap]
                if not due:
                    return
                now_s = max(now_s, min(due))
            self._arrive(now_s)
            if engine.idle:
                continue
            result = engine.step(now_s)
            for rid in result.started:
                self._started_s[int(rid)] = now_s
            now_s += result.duration_s
            for output in result.outputs:
                self._advance(int(output.rid), output, now_s)

    def _arrive(self, now_s: float) -> None:
        """Takes in what was sent by now, in order, and hands the engine what is ready by now."""
        while self._sends and self._sends[0][0] <= now_s:
            sent_s, index = heapq.heappop(self._sends)
            self._sent_s[index] = sent_s
            ready_s = self._front_end.ready_s(
                sent_s, self._requests[index].prompt_tokens, text=self._calls[index].text
            )
            heapq.heappush(self._ready, (ready_s, index))
        while self._ready and self._ready[0][0] <= now_s:
            ready_s, index = heapq.heappop(self._ready)
            try:
                self._engine.submit(self._requests[index], ready_s)
            except ValueError as error:
                self._errors[index] = str(error)
                self._tell(index, now_s, first=False)
                self._tell(index, now_s, first=True)

    def _advance(self, index: int, output: TokenOutput, now_s: float) -> None:
        counts = self._counts[index]
        counts.append((counts[-1] if counts else 0) + output.new_tokens)
        self._token_s[index].append(now_s)
        if output.first:
            self._cached[index] = output.cached_tokens
            self._tell(index, now_s, first=True)
        if output.finished:
            self._tell(index, now_s, first=False)

    def _tell(self, index: int, now_s: float, *, first: bool) -> None:
        """Starts what waited for this call's first token, or for its end."""
        for other in self._followers[index]:
            call = self._calls[other]
            if call.after_first == first:
                self._waits[other] -= 1
                if self._waits[other] == 0:
                    heapq.heappush(self._sends, (now_s + call.delay_s, other))

    def timings(self) -> list[Timing]:
        return [
            Timing(
                sent_s=self._sent_s[index],
                token_s=tuple(self._token_s[index]),
                token_counts=tuple(self._counts[index]),
                prompt_tokens=request.prompt_tokens,
                cached_tokens=self._cached[index],
                error=self._errors[index],
                meta={FORWARD_START: self._started_s[index], FORWARD_END: self._token_s[index][0]}
                if self._token_s[index]
                else {},
            )
            for index, request in enumerate(self._requests)
        ]
