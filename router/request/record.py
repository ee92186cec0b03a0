"""One Outcome per request: what happened, handed to every reader at its end.

Called by request.dispatch. Readers (metrics, policies through Finished, logs, experiments) measure nothing themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from router.clock import Clock
from router.errors import ClientGone
from router.fleet.registry import Registry
from router.request.progress import Progress
from router.request.relay import Relayed
from router.request.usage import Usage
from router.types import Finished, Outcome

OutcomeSink = Callable[[Outcome], None]
BodySink = Callable[[Outcome, bytes], None]
NONE_REPORTED = Usage()


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
        self._sinks = sinks
        self._body_sinks = body_sinks
        self._clock = clock

    def record(self, progress: Progress) -> None:
        """Emit the one record of this request. Never raises for what a request did."""
        now_s = self._clock()
        outcome = self._outcome(progress, now_s)
        decision = progress.decision
        if decision is not None and progress.dispatched_s is not None:
            self._registry.emit(
                Finished(request_id=outcome.request_id, worker=decision.worker, outcome=outcome, at_s=now_s)
            )
        for sink in self._sinks:
            sink(outcome)
        for body_sink in self._body_sinks:
            body_sink(outcome, progress.raw.body)

    def _outcome(self, progress: Progress, now_s: float) -> Outcome:
        raw, request, result, error = progress.raw, progress.request, progress.result, progress.error
        usage = result.usage if result else NONE_REPORTED
        return Outcome(
            request_id=raw.request_id,
            endpoint=raw.endpoint,
            at_s=raw.at_s,
            status=error.status if error else (result.status if result else 0),
            e2e_s=now_s - raw.at_s,
            policy=progress.policy_name or self._policy_name,
            arm=progress.arm,
            spilled=progress.spilled,
            trace=raw.trace,
            model=request.model if request else None,
            session=request.session if request else None,
            client=request.client if request else None,
            max_output_tokens=request.max_output_tokens if request else None,
            decision=progress.decision,
            decision_s=progress.decision_s,
            held_s=progress.held_s,
            attempts=len(progress.tried),
            stream=request.stream if request else False,
            error=error.code if error else None,
            client_gone=isinstance(error, ClientGone),
            ttft_s=result.first_s - raw.at_s if result and result.first_s is not None else None,
            itl_mean_s=_itl_mean_s(result) if result and result.events > 1 else None,
            events=result.events if result else 0,
            key=request.key if request else None,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
        )


def _itl_mean_s(result: Relayed) -> float | None:
    """Mean seconds between its events, of which there must be two."""
    if result.first_s is None or result.last_s is None:
        return None
    return (result.last_s - result.first_s) / (result.events - 1)
