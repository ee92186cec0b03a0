"""Unrelated one-offs: no two prompts share more than a few words, so no router can gain from caches.

The check that cache-awareness costs nothing where it cannot help. Registered in __init__.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from loadtests.load_request import LoadRequest
from loadtests.workloads.prose import prose


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform:
    """Prompt sizes are uniform between half and one and a half times `prompt_tokens`."""

    seed: int = 0
    prompt_tokens: int = 1000
    output_tokens: int = 128

    def session(self, rng: Random, index: int) -> Sequence[LoadRequest]:
        tokens = rng.randint(max(1, self.prompt_tokens // 2), max(1, self.prompt_tokens * 3 // 2))
        return [
            LoadRequest(
                session_id=f"uniform-{index}",
                turn=0,
                arrival_s=0.0,
                messages=[{"role": "user", "content": prose(rng, tokens)}],
                max_tokens=self.output_tokens,
                workload="uniform",
            )
        ]
