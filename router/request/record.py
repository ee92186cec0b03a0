"""One Outcome per request: what happened, handed to every reader at its end.

Called by request.dispatch. Readers (metrics, policies through Finished, logs, experiments) measure nothing themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from router.clock import Clock
from router.errors import ClientGone
from router.fleet.registry import Registry
from router.records import Finished, Outcome, RoutingRequest
from router.request.progress import Progress
from router.request.relayed import Relayed
from router.request.usage import Usage
from router.types import PromptKey

OutcomeSink = Callable[[Outcome], None]
BodySink = Callable[[Outcome, bytes], None]
NO_ANSWER = Relayed(status=0, first_s=None, last_s=None, events=0, usage=Usage())
"""What is known of an answer that never came."""
NO_KEY = PromptKey(blocks=(), unit_tokens=1.0, prompt_tokens=0.0)
"""What is known of a prompt that was never read."""


class Recorder:
    """Builds the Outcome and tells the fleet's listeners and the sinks."""

    def __init__(
        self,
        *,
        policy_name: str,
        registry: Registry,
        sinks: Sequence[OutcomeSink],
        clock: Clock,
        body_sinks: Sequence[BodySink] = (),
    ) -> None:
        self._policy_name = policy_name
        self._registry = registry
        self._sinks = list(sinks)
        self._body_sinks = list(body_sinks)
        self._clock = clock

    def record(self, progress: Progress) -> None:
        """Emit the one record of this request. Never raises for what a request did."""
        now_s = self._clock()
        outcome, decision = self._outcome(progress, now_s), progress.decision
        if decision is not None and progress.dispatched_s is not None:
            finished = Finished(request_id=outcome.request_id, worker=decision.worker, outcome=outcome, at_s=now_s)
            self._registry.emit(finished)
        for sink in self._sinks:
            sink(outcome)
        for body_sink in self._body_sinks:
            body_sink(outcome, progress.raw.body)

    def _outcome(self, progress: Progress, now_s: float) -> Outcome:
        raw, request, error = progress.raw, progress.request, progress.error
        result = progress.result or NO_ANSWER
        usage, at_s, first_s = result.usage, raw.at_s, result.first_s
        if request is None:
            request = RoutingRequest(request_id=raw.request_id, endpoint=raw.endpoint, key=NO_KEY)
        return Outcome(
            request_id=raw.request_id,
            endpoint=raw.endpoint,
            at_s=at_s,
            status=result.status if error is None else error.status,
            e2e_s=now_s - at_s,
            policy=progress.policy_name or self._policy_name,
            arm=progress.arm,
            spilled=progress.spilled,
            trace=raw.trace,
            model=request.model,
            session=request.session,
            client=request.client,
            max_output_tokens=request.max_output_tokens,
            decision=progress.decision,
            decision_s=progress.decision_s,
            held_s=progress.held_s,
            attempts=len(progress.tried),
            stream=request.stream,
            error=None if error is None else error.code,
            client_gone=error is not None and isinstance(error, ClientGone),
            ttft_s=None if first_s is None else first_s - at_s,
            itl_mean_s=_itl_mean_s(result) if result.events > 1 else None,
            events=result.events,
            key=None if request.key is NO_KEY else request.key,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
        )


def _itl_mean_s(result: Relayed) -> float:
    """Mean seconds between its events, of which there must be two."""
    assert result.first_s is not None
    assert result.last_s is not None
    return (result.last_s - result.first_s) / (result.events - 1)
