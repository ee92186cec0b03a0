"""The recipe of one request: parse, prompt key, select (and hold), lease, forward, relay, record.

The only caller of its sibling stages, which do not know each other. Owns retries: until the first byte reaches the
client a failed attempt goes to another worker; after it, the client gets a visible error event. Not here: what a
worker is (fleet), which one is best (policies), HTTP towards the client (endpoints).
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from router.admission.admission import Admission, AdmissionConfig
from router.admission.door import Door
from router.admission.held_queue import Held, HoldConfig
from router.admission.hold import Hold
from router.admission.retry import RetryBudget, RetryConfig, pause_asked_s, refusal
from router.clock import Clock
from router.compiled import interpreted
from router.errors import (
    ClientGone,
    DeadlineExceeded,
    InternalError,
    NoWorker,
    RouterError,
    RouterStopping,
    WorkerBusy,
    WorkerError,
)
from router.experiment.choice import Choice
from router.experiment.steering import Steering
from router.fleet.call_off import CallOff
from router.fleet.deadlines import Deadlines
from router.fleet.lease import Lease
from router.fleet.registry import Registry
from router.fleet.response_homes import ResponseHomes
from router.fleet.worker import Worker
from router.knob import knob, require
from router.records import Dispatched, FirstToken, RoutingRequest
from router.request.body_edit import body_for
from router.request.disconnect import LEFT
from router.request.exact import ExactMatcher
from router.request.explain import Explainer, explain_headers
from router.request.forward import Forwarder
from router.request.head import Head
from router.request.parse import parse
from router.request.progress import Progress
from router.request.prompt_key import PromptKeyConfig, prompt_key
from router.request.raw_request import RawRequest
from router.request.record import Recorder
from router.request.relay import relay
from router.request.relayed import Relayed
from router.request.reply import Reply, send_error
from router.request.strand import Strand
from router.request.worker_connection import WorkerConnection
from router.security.access import Access
from router.security.client import ANONYMOUS
from router.types import AttemptFailed, RequestId, WorkerId

log = logging.getLogger(__name__)

LARGE_BYTES = 16 * 2**10
"""What was read in a larger body is let go before its request waits for a worker; that of a smaller one may stay."""


@interpreted
@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchConfig:
    max_attempts: int = knob(3, "workers tried for one request before its error is shown")
    retry_statuses: tuple[int, ...] = knob(
        (429, 500, 502, 503, 504), "statuses of a worker after which another worker is tried"
    )
    total_timeout_s: float = knob(3600.0, "seconds that a whole request may take, retries and streaming included")
    session_header: str = knob("x-session-id", "request header that names a conversation")
    ask_usage: bool = knob(True, "ask workers for the usage of streams whose client did not, and hide it again")

    def __post_init__(self) -> None:
        require(self.max_attempts >= 1, "max_attempts must be at least 1")
        require(self.total_timeout_s > 0, "total_timeout_s must be positive")


class Dispatcher:
    """Routes requests. One per app; keeps no state of its own."""

    def __init__(
        self,
        *,
        config: DispatchConfig,
        key_config: PromptKeyConfig,
        registry: Registry,
        steering: Steering,
        explainer: Explainer,
        forwarder: Forwarder,
        recorder: Recorder,
        clock: Clock,
        exact: ExactMatcher | None = None,
        homes: ResponseHomes | None = None,
        retries: RetryBudget | None = None,
        access: Access | None = None,
        admission: Admission | None = None,
        hold: Hold | None = None,
        door: Door | None = None,
    ) -> None:
        self.reconfigure(config)
        self._key_config = key_config
        self._registry = registry
        self._steering = steering
        self._explainer = explainer
        self._forwarder = forwarder
        self._recorder = recorder
        self._clock = clock
        self._exact = exact
        self._homes = homes or ResponseHomes()
        self._retries = retries or RetryBudget(RetryConfig(), Random())
        self._access = access or Access()
        self._admission = admission or Admission(AdmissionConfig(), clock)
        self._hold = hold or Hold(HoldConfig(), clock)
        self._door = door or Door()
        self._deadlines = Deadlines(self._too_late)

    async def dispatch(self, raw: RawRequest, reply: Reply, strand: Strand) -> None:
        """Route one request and answer it, well or with an error; one Outcome is recorded in every case. Run by
        `strand`.

        Raises only CancelledError (the client hung up, or the app is stopping).
        """
        call_off = CallOff(strand)
        progress = Progress(raw, reply, call_off)
        self._deadlines.begin(call_off, self._config.total_timeout_s, strand.loop)
        try:
            try:
                await self._route(progress)
            except asyncio.CancelledError:
                error = call_off.taken()
                if error is None:
                    raise
                raise error from None
            finally:
                self._deadlines.end(call_off)
        except RouterError as error:
            progress.error = error
            send_error(reply, error, raw.endpoint, raw.request_id)
        except asyncio.CancelledError as stop:
            if LEFT in stop.args:
                progress.error = ClientGone("The client hung up.")
                raise
            stopping = RouterStopping("The router stops; send the request again.", retry_after_s=1)
            progress.error = stopping
            send_error(reply, stopping, raw.endpoint, raw.request_id)
            raise
        except Exception as error:  # a bug of ours: the client must hear of it, and so must we
            log.exception("request %s failed inside the router", raw.request_id)
            failure = InternalError(f"The router failed: {type(error).__name__}. Request id {raw.request_id}.")
            progress.error = failure
            send_error(reply, failure, raw.endpoint, raw.request_id)
        finally:
            self._recorder.record(progress)

    def reconfigure(self, config: DispatchConfig) -> None:
        """These settings count from the next request on."""
        self._config = config
        self._session_header = config.session_header.lower().encode("latin-1")

    def admit_stranger(self, head: Head) -> None:
        """Whether a request with this head is worth reading its body. Raises RouterStopping or InvalidApiKey."""
        self._door.check()
        self._access.identify(head.texts)

    def _too_late(self, call_off: CallOff) -> None:
        limit_s = self._config.total_timeout_s
        call_off(DeadlineExceeded(f"The request took longer than {limit_s:g} s (dispatch.total_timeout_s)."))

    async def _route(self, progress: Progress) -> None:
        raw, access = progress.raw, self._access
        head = raw.head
        if self._door.closed:
            self._door.check()
        client = access.identify(head.texts) if access.closed else ANONYMOUS
        parsed = progress.parsed = parse(raw.endpoint, raw.body, head.text(self._session_header))
        model = access.routed_model(client, parsed.model, self._registry.models)
        exact = progress.exact = None if self._exact is None else await self._exact.match(parsed)
        request = progress.request = RoutingRequest(
            request_id=raw.request_id,
            endpoint=raw.endpoint,
            key=prompt_key(parsed, self._key_config),
            at_s=raw.at_s,
            model=model,
            session=parsed.session,
            client=head.client,
            stream=parsed.stream,
            max_output_tokens=parsed.max_output_tokens,
            known_match_tokens=None if exact is None else exact.match_tokens,
            known_prompt_tokens=None if exact is None else exact.prompt_tokens,
        )
        if len(raw.body) > LARGE_BYTES:
            progress.parsed = parsed = parsed.without_body()
        share = request.client or client.name if client is ANONYMOUS else client.name
        ticket = self._admission.arrive(client, request.key.prompt_tokens, share)
        if ticket.state != "running":
            await self._admission.wait(ticket)
        try:
            await self._serve(progress, request, ticket.weight)
        finally:
            self._admission.release(ticket)

    async def _serve(self, progress: Progress, request: RoutingRequest, weight: float) -> None:
        """One attempt after another until one succeeds or nothing is left to try."""
        self._retries.request()
        previous = progress.parsed.previous_response
        if previous is not None:
            progress.home = self._homes.home(previous)
        tried = progress.tried
        failure: WorkerError | None = None
        while True:
            choice = self._choose(progress, request, failure)
            if choice.decision.hold:
                request, choice = await self._held(progress, request, choice, failure, weight)
            worker = self._decided(progress, request, choice)
            tried.append(worker.id)
            try:
                result = progress.result = await self._attempt(progress, request, worker, choice)
            except WorkerError as error:
                now_s = self._clock()
                self._registry.emit(
                    AttemptFailed(request_id=request.request_id, worker=worker.id, at_s=now_s, code=error.code)
                )
                progress.dispatched_s = None
                if progress.reply.started or not error.retry_safe or not self._retries.retry(now_s):
                    raise
                failure = error
            else:
                if result.response_id is not None:
                    self._homes.made(result.response_id, worker.server)
                if self._exact is not None and progress.exact is not None:
                    self._exact.reported(progress.exact, result.usage.prompt_tokens)
                return
            pause_s = self._retries.pause_s(failure, len(tried) + 1)
            if pause_s > 0:
                await asyncio.sleep(pause_s)

    async def _held(
        self, progress: Progress, request: RoutingRequest, choice: Choice, failure: WorkerError | None, weight: float
    ) -> tuple[RoutingRequest, Choice]:
        """Wait until the policy would send the request on; it decides again and again, about the same request later."""
        hold, held, since_s = self._hold, Held(progress.raw.at_s, weight), self._clock()
        try:
            while hold.waits(choice.decision, held):
                await hold.turn(held, choice.decision)
                request = replace(request, at_s=self._clock())
                choice = self._choose(progress, request, failure)
        finally:
            held_s = self._clock() - since_s
            hold.leave(held, held_s)
            progress.held_s += held_s
        return request, choice

    def _choose(self, progress: Progress, request: RoutingRequest, failure: WorkerError | None) -> Choice:
        """The policy's choice among workers not yet tried; re-raises the last failure when none is left.

        What continues a stored response goes to the server that has it, `home`, while that can be reached.
        """
        home, tried = progress.home, progress.tried
        if failure is not None and (home is not None or len(tried) >= self._config.max_attempts):
            raise failure
        try:
            workers = self._registry.eligible(request.model, tried)
        except NoWorker:
            if failure is not None:
                raise failure from None
            raise
        if home is not None:
            workers = self._registry.at_home(home, tried) or workers
        progress.workers = workers
        started_s = self._clock()
        choice = self._steering.choose(request, workers)
        progress.decision_s += self._clock() - started_s
        return choice

    def _decided(self, progress: Progress, request: RoutingRequest, choice: Choice) -> Worker:
        """The choice is final: it is noted."""
        decision = progress.decision = choice.decision
        progress.policy_name, progress.arm = choice.policy_name, choice.arm
        progress.spilled = progress.spilled or choice.spilled
        return self._registry.get(decision.worker)

    def _is_last(self, request: RoutingRequest, tried: list[WorkerId]) -> bool:
        """Whether no further worker could be tried, so that a worker's own error is handed on as it is."""
        if len(tried) >= self._config.max_attempts:
            return True
        try:
            self._registry.eligible(request.model, tried)
        except NoWorker:
            return True
        return False

    async def _attempt(
        self, progress: Progress, request: RoutingRequest, worker: Worker, choice: Choice
    ) -> Relayed:
        """Send it on, and only then do what it need not wait for: explain the choice and show it to shadows, before it
        counts as dispatched."""
        raw, parsed, decision, registry = progress.raw, progress.parsed, choice.decision, self._registry
        body, hide_usage = body_for(raw.body, parsed, worker, ask_usage=self._config.ask_usage)
        lines = raw.head.lines(worker.extra_headers, closed=self._access.closed, traced=raw.trace is not None)
        sent_s = progress.dispatched_s = self._clock()
        sent = self._forwarder.send(worker, raw.head.target, lines + raw.own_lines, body)
        try:
            self._explainer.decided(request, choice, asked=raw.head.explains)
            self._steering.shadow(request, progress.workers, decision)
            with registry.lease(worker, progress.call_off) as lease:
                registry.emit(Dispatched(request=request, decision=decision, at_s=sent_s))
                answer = await self._forwarder.answered(sent)
                try:
                    if answer.status in self._config.retry_statuses:
                        self._refused(progress, request, worker, answer)
                    own = [(b"x-request-id", raw.request_id.encode("latin-1"))]
                    if raw.head.explains:
                        own += explain_headers(decision)
                    began = partial(self._began, lease, request.request_id, sent_s, answer.status)
                    result = await relay(
                        answer, progress.reply, raw.endpoint, own, self._clock, began, hide_usage=hide_usage
                    )
                    return settled(result, worker, raw.endpoint)
                finally:
                    self._forwarder.ended(answer)
        finally:
            sent.drop()

    def _refused(
        self, progress: Progress, request: RoutingRequest, worker: Worker, answer: WorkerConnection
    ) -> None:
        """Raises WorkerRefused if another worker may be tried; the last one's own error is handed on."""
        refused = refusal(worker.id, answer.status, answer.retry_after)
        if isinstance(refused, WorkerBusy):
            self._registry.hold(worker, pause_asked_s(answer.retry_after))
        if progress.home is None and not self._is_last(request, progress.tried):
            raise refused

    def _began(self, lease: Lease, request_id: RequestId, sent_s: float, status: int, now_s: float) -> None:
        """The first byte of an answer is there."""
        lease.answered()
        self._registry.emit(
            FirstToken(
                request_id=request_id, worker=lease.worker.id, ttft_s=now_s - sent_s, at_s=now_s, status=status
            )
        )


def settled(result: Relayed, worker: Worker, endpoint: str) -> Relayed:
    """The result with what a worker's silence means: one that reports cached tokens and named none had none.

    `/generate` reports them always, other routes only with --enable-cache-report: it says nothing about them.
    """
    usage = result.usage
    if usage.cached_tokens and endpoint != "/generate":
        worker.reports_cached = True
    elif usage.cached_tokens is None and usage.prompt_tokens is not None and worker.reports_cached:
        return replace(result, usage=replace(usage, cached_tokens=0))
    return result
