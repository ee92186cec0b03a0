"""Workers as a policy sees them, and requests and dispatches for it. Used by the tests of policies and experiments."""

from __future__ import annotations

from dataclasses import dataclass

from router.policies import Policy
from router.records import Decision, Dispatched, RoutingRequest
from router.types import LoadReport, PromptKey, Reason, RequestId, WorkerId


@dataclass
class View:
    """A worker in a policy's eyes."""

    id: WorkerId
    in_flight: int = 0
    load: LoadReport | None = None


def fleet(*in_flight: int) -> list[View]:
    """Workers w0, w1, ... with so many requests each."""
    return [View(WorkerId(f"w{i}"), count) for i, count in enumerate(in_flight)]


def request(*blocks: int, name: str = "r", tokens: float | None = None) -> RoutingRequest:
    """A prompt of blocks of 100 tokens; `tokens` where it is not all of them."""
    key = PromptKey(blocks=blocks, unit_tokens=100.0, prompt_tokens=100.0 * len(blocks) if tokens is None else tokens)
    return RoutingRequest(request_id=RequestId(name), endpoint="/generate", key=key)


def dispatch(policy: Policy, asked: RoutingRequest, worker: str, at_s: float = 0.0) -> None:
    """Tells the policy that the request went to `worker`."""
    decision = Decision(worker=WorkerId(worker), reason=Reason.LOWEST_COST)
    policy.observe(Dispatched(request=asked, decision=decision, at_s=at_s))
