"""Few-shot prompts: a task's worked examples in a fixed order, then the case at hand.

Several tasks share their first examples' style but no text; calls of one task share all but the last message.
Registered in __init__.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from loadtests.load_request import Json, LoadRequest
from loadtests.workloads.base import rng_of
from loadtests.workloads.prose import prose, question, sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class FewShot:
    """`shots` examples of `example_tokens` tokens each, for each of `tasks` tasks."""

    seed: int = 0
    tasks: int = 12
    shots: int = 8
    example_tokens: int = 160
    output_tokens: int = 80

    def session(self, rng: Random, index: int) -> Sequence[LoadRequest]:
        messages = [*self._examples(rng.randrange(self.tasks)), {"role": "user", "content": self._case(rng)}]
        return [
            LoadRequest(
                session_id=f"few-shot-{index}",
                turn=0,
                arrival_s=0.0,
                messages=messages,
                max_tokens=self.output_tokens,
                workload="few_shot",
            )
        ]

    def _examples(self, task: int) -> list[Json]:
        rng = rng_of(self.seed, "task", task)
        messages: list[Json] = [{"role": "system", "content": f"Work as in the examples. {sentence(rng)}"}]
        for _ in range(self.shots):
            messages.append({"role": "user", "content": self._case(rng)})
            messages.append({"role": "assistant", "content": prose(rng, self.example_tokens // 2)})
        return messages

    def _case(self, rng: Random) -> str:
        return f"{question(rng)} {prose(rng, self.example_tokens // 2)}"
