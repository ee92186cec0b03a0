"""Several kinds of traffic at once: each session is of one kind, drawn by weight.

`Blend` mixes any workloads, `Mix` the six kinds at their default sizes. `Mix` is registered in __init__.py; scenarios
make Blends with sizes of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from loadtests.load_request import LoadRequest
from loadtests.workloads.agent_loop import AgentLoop
from loadtests.workloads.base import Workload
from loadtests.workloads.few_shot import FewShot
from loadtests.workloads.multi_turn import MultiTurn
from loadtests.workloads.rag import Rag
from loadtests.workloads.shared_prefix import SharedPrefix
from loadtests.workloads.uniform import Uniform


class Blend:
    """Sessions of several workloads, a pair of weight and workload each. Raises ValueError when no weight is
    positive.
    """

    def __init__(self, parts: Sequence[tuple[float, Workload]], *, seed: int) -> None:
        if not any(weight > 0 for weight, _ in parts):
            raise ValueError("a mix needs a weight above zero")
        self.seed = seed
        self._weights = [weight for weight, _ in parts]
        self._workloads = [workload for _, workload in parts]

    def session(self, rng: Random, index: int) -> Sequence[LoadRequest]:
        return rng.choices(self._workloads, self._weights)[0].session(rng, index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """The weight of each kind; sessions, not calls, are drawn."""

    seed: int = 0
    shared_prefix: float = 3.0
    multi_turn: float = 4.0
    agent_loop: float = 3.0
    rag: float = 2.0
    few_shot: float = 2.0
    uniform: float = 1.0

    def session(self, rng: Random, index: int) -> Sequence[LoadRequest]:
        parts: list[tuple[float, Workload]] = [
            (self.shared_prefix, SharedPrefix(seed=self.seed)),
            (self.multi_turn, MultiTurn(seed=self.seed)),
            (self.agent_loop, AgentLoop(seed=self.seed)),
            (self.rag, Rag(seed=self.seed)),
            (self.few_shot, FewShot(seed=self.seed)),
            (self.uniform, Uniform(seed=self.seed)),
        ]
        return Blend(parts, seed=self.seed).session(rng, index)
