"""Chat of several turns: each prompt is the whole conversation so far, plus one message.

Sessions share only the system prompt; all else is reused within a session. Registered in __init__.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from loadtests.load_request import Json, LoadRequest
from loadtests.workloads.base import rng_of
from loadtests.workloads.prose import prose, question


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiTurn:
    """`turns` is a mean: sessions have from one to twice that less one. People think `think_s` on average
    (exponential) before they answer. Sizes in tokens; an answer is as long as the call's `max_tokens`.
    """

    seed: int = 0
    turns: int = 5
    system_tokens: int = 300
    message_tokens: int = 120
    output_tokens: int = 200
    think_s: float = 8.0

    def session(self, rng: Random, index: int) -> Sequence[LoadRequest]:
        history: list[Json] = [
            {"role": "system", "content": prose(rng_of(self.seed, "system"), self.system_tokens)},
        ]
        requests = []
        for turn in range(rng.randint(1, max(1, 2 * self.turns - 1))):
            history.append({"role": "user", "content": f"{question(rng)} {prose(rng, self.message_tokens)}"})
            requests.append(
                LoadRequest(
                    session_id=f"multi-turn-{index}",
                    turn=turn,
                    arrival_s=0.0,
                    gap_s=rng.expovariate(1 / self.think_s) if turn and self.think_s > 0 else 0.0,
                    messages=tuple(history),
                    max_tokens=self.output_tokens,
                    workload="multi_turn",
                )
            )
            history.append({"role": "assistant", "content": prose(rng, self.output_tokens)})
        return requests
