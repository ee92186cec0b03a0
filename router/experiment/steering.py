"""Which policy decides a request: the live one, or an arm of the running experiment; shadows are asked beside it.

The one place where live traffic, experiment and shadows meet. Called by request.dispatch (choose, shadow) and, as a
listener, by the fleet's registry. Not here: statistics (compare), what an arm is (arm), HTTP (routes).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from router.experiment.choice import Choice
from router.policies.base import Policy
from router.records import Decision, FleetEvent, RoutingRequest
from router.types import Workers

log = logging.getLogger(__name__)

LEFT_OUT = "failed and is left out from now on"


class Chooser(Protocol):
    """A running experiment, as steering sees it. Once `broken`, it is neither asked nor told anything any more."""

    broken: bool

    def choose(self, request: RoutingRequest, workers: Workers) -> Choice | None:
        """The choice of the request's arm; None when the request takes no part."""
        ...

    def observe(self, event: FleetEvent) -> None: ...


class Beside(Protocol):
    """A shadow, as steering sees it. Once `broken`, it is neither asked nor told anything any more."""

    broken: bool

    def ask(self, request: RoutingRequest, workers: Workers, live: Decision) -> None: ...
    def observe(self, event: FleetEvent) -> None: ...


class Steering:
    """Exactly `policy.select` while there is neither experiment nor shadow."""

    def __init__(self, policy: Policy, name: str, shadows: Sequence[Beside] = ()) -> None:
        self._policy = policy
        self._name = name
        self._shadows = tuple(shadows)
        self.experiment: Chooser | None = None

    @property
    def policy(self) -> Policy:
        """The live policy: it decides whatever no arm decides."""
        return self._policy

    @property
    def name(self) -> str:
        return self._name

    def set_shadows(self, shadows: Sequence[Beside]) -> None:
        """From now on these are asked, and no others."""
        self._shadows = tuple(shadows)

    def choose(self, request: RoutingRequest, workers: Workers) -> Choice:
        """Decide. Reads only, as `Policy.select` does."""
        if self.experiment is not None:
            choice = self._arms_choice(self.experiment, request, workers)
            if choice is not None:
                return choice
        decision = self._policy.select(request, workers)
        return Choice(decision=decision, policy=self._policy, policy_name=self._name, workers=workers)

    def shadow(self, request: RoutingRequest, workers: Workers, live: Decision) -> None:
        """Ask every shadow what it would have done. Nothing of it reaches the client."""
        for shadow in self._shadows:
            if not shadow.broken:
                try:
                    shadow.ask(request, workers, live)
                except Exception:  # a bug in a policy that nobody follows must not cost a request
                    shadow.broken = True
                    log.exception("a shadow %s", LEFT_OUT)

    def observe(self, event: FleetEvent) -> None:
        """What happened in the fleet, to everybody who decides or would have."""
        self._policy.observe(event)
        if self.experiment is None and not self._shadows:
            return
        for other in (self.experiment, *self._shadows):
            if other is not None and not other.broken:
                try:
                    other.observe(event)
                except Exception:  # as above
                    other.broken = True
                    log.exception("a shadow or an arm %s", LEFT_OUT)

    @staticmethod
    def _arms_choice(experiment: Chooser, request: RoutingRequest, workers: Workers) -> Choice | None:
        if experiment.broken:
            return None
        try:
            return experiment.choose(request, workers)
        except Exception:  # the live policy can still answer
            experiment.broken = True
            log.exception("an arm %s", LEFT_OUT)
            return None
