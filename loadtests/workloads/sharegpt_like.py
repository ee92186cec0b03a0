"""Conversations as long as those of ShareGPT: short and very long messages and answers in one stream.

Lengths are log-normal around ShareGPT's published means, since its texts may not be shipped. Sessions share nothing
but chance. Registered in __init__.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from loadtests.load_request import Json, LoadRequest
from loadtests.workloads.prose import prose, question


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareGptLike:
    """Mean lengths in tokens: 161 in, 338 out (Kwon et al., "PagedAttention", SOSP 2023, figure 11). `spread` is the
    standard deviation of the logarithm (our choice: 1.1 puts the p99 at about seven means). `turns` is a mean: sessions
    have from one to twice that less one.
    """

    seed: int = 0
    turns: int = 3
    message_tokens: int = 161
    output_tokens: int = 338
    spread: float = 1.1
    longest_tokens: int = 2048
    think_s: float = 8.0

    def session(self, rng: Random, index: int) -> Sequence[LoadRequest]:
        history: list[Json] = []
        requests = []
        for turn in range(rng.randint(1, max(1, 2 * self.turns - 1))):
            asked = prose(rng, self._length(rng, self.message_tokens))
            history.append({"role": "user", "content": f"{question(rng)} {asked}"})
            answer_tokens = self._length(rng, self.output_tokens)
            requests.append(
                LoadRequest(
                    session_id=f"sharegpt-like-{index}",
                    turn=turn,
                    arrival_s=0.0,
                    gap_s=rng.expovariate(1 / self.think_s) if turn and self.think_s > 0 else 0.0,
                    messages=tuple(history),
                    max_tokens=answer_tokens,
                    workload="sharegpt_like",
                )
            )
            history.append({"role": "assistant", "content": prose(rng, answer_tokens)})
        return requests

    def _length(self, rng: Random, mean_tokens: int) -> int:
        """Log-normal with that mean before it is cut at `longest_tokens`."""
        drawn = rng.lognormvariate(math.log(mean_tokens) - self.spread**2 / 2, self.spread)
        return max(1, min(self.longest_tokens, round(drawn)))
