"""One Outcome per request: what happened, collected while it happens and handed to every reader at its end.

Called by request.dispatch. Readers (metrics, policies through Finished, logs, experiments) measure nothing themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from router.clock import Clock
from router.errors import ClientGone, RouterError
from router.experiment.steering import Choice
from router.fleet.registry import Registry
from router.request.relay import Relayed
from router.request.usage import Usage
from router.types import ArmName, Decision, Finished, Outcome, RequestId, RoutingRequest, TraceContext

OutcomeSink = Callable[[Outcome], None]
BodySink = Callable[[Outcome, bytes], None]


class Progress:
    """What is known so far of one request. Written by dispatch only; read once, by Recorder."""

    __slots__ = (
        "arm", "at_s", "attempts", "body", "decision", "decision_s", "dispatched_s", "endpoint", "error", "explain",
        "policy_name", "request", "request_id", "result", "spilled", "trace",
    )  # fmt: skip

    def __init__(self, request_id: RequestId, endpoint: str, at_s: float, body: bytes = b"") -> None:
        self.request_id = request_id
        self.endpoint = endpoint
        self.at_s = at_s
        self.body = body
        self.explain = False
        self.policy_name: str | None = None
        self.arm: ArmName | None = None
        self.spilled = False
        self.trace: TraceContext | None = None
        self.request: RoutingRequest | None = None
        self.decision: Decision | None = None
        self.decision_s = 0.0
        self.attempts = 0
        self.dispatched_s: float | None = None
        self.result: Relayed | None = None
        self.error: RouterError | None = None

    def decided(self, choice: Choice, took_s: float) -> None:
        self.decision = choice.decision
        self.policy_name = choice.policy_name
        self.arm = choice.arm
        self.spilled = self.spilled or choice.spilled
        self.decision_s += took_s
        self.attempts += 1

    def relayed(self, result: Relayed) -> None:
        self.result = result

    def failed(self, error: RouterError) -> None:
        self.error = error


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
        worker = outcome.worker
        if worker is not None and progress.dispatched_s is not None:
            self._registry.emit(
                Finished(request_id=progress.request_id, worker=worker, outcome=outcome, at_s=now_s)
            )
        for sink in self._sinks:
            sink(outcome)
        for body_sink in self._body_sinks:
            body_sink(outcome, progress.body)

    def _outcome(self, progress: Progress, now_s: float) -> Outcome:
        request, result, error = progress.request, progress.result, progress.error
        usage = result.usage if result else Usage()
        return Outcome(
            request_id=progress.request_id,
            endpoint=progress.endpoint,
            at_s=progress.at_s,
            status=error.status if error else (result.status if result else 0),
            e2e_s=now_s - progress.at_s,
            policy=progress.policy_name or self._policy_name,
            arm=progress.arm,
            spilled=progress.spilled,
            trace=progress.trace,
            model=request.model if request else None,
            session=request.session if request else None,
            client=request.client if request else None,
            max_output_tokens=request.max_output_tokens if request else None,
            decision=progress.decision,
            decision_s=progress.decision_s,
            attempts=progress.attempts,
            stream=request.stream if request else False,
            error=error.code if error else None,
            client_gone=isinstance(error, ClientGone),
            ttft_s=result.first_s - progress.at_s if result and result.first_s is not None else None,
            itl_mean_s=_itl_mean_s(result),
            events=result.events if result else 0,
            key=request.key if request else None,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
        )


def _itl_mean_s(result: Relayed | None) -> float | None:
    """Mean seconds between events; None with fewer than two."""
    if result is None or result.first_s is None or result.last_s is None or result.events < 2:
        return None
    return (result.last_s - result.first_s) / (result.events - 1)
