"""Shared system prompts: a few long instructions, each used by many users who ask one question.

The easiest gain of a cache-aware router: as many prefixes as there are applications. Registered in __init__.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from loadtests.load_request import LoadRequest
from loadtests.workloads.base import rng_of
from loadtests.workloads.prose import prose, question


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPrefix:
    """Applications are equally popular."""

    seed: int = 0
    applications: int = 8
    system_tokens: int = 2000
    question_tokens: int = 60
    output_tokens: int = 128

    def session(self, rng: Random, index: int) -> Sequence[LoadRequest]:
        application = rng.randrange(self.applications)
        system = prose(rng_of(self.seed, "system", application), self.system_tokens)
        asked = f"{question(rng)} {prose(rng, self.question_tokens)}"
        messages = [{"role": "system", "content": system}, {"role": "user", "content": asked}]
        return [
            LoadRequest(
                session_id=f"shared-prefix-{index}",
                turn=0,
                arrival_s=0.0,
                messages=messages,
                max_tokens=self.output_tokens,
                workload="shared_prefix",
            )
        ]
