"""The knobs of one cell of replay: fleet, load, and what policies are told. Validated when built.

Read by everything that replays. Not here: what is replayed (replay_source.py), the policy (replay_policy.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from workers.simulated.cost_model import H200_QWEN3_8B, CostModel
from workers.simulated.engine_config import EngineConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayConfig:
    """One cell. Raises ValueError, naming the field, for values that cannot work.

    capacity_tokens: KV cache of each worker. rate: arrivals come this many times as often (pauses within a session that
    waits for its turns stay). load_poll_s: how often the policy hears of every worker's load, in seconds. spread:
    arrivals that share a timestamp are spread over the tick of the trace's clock, as the seed has it. jitter_s: each
    session starts up to so many seconds of the trace later, all its turns alike, so that seeds differ on every trace.
    objective_s: the TTFT that counts as good.
    overlap: engines plan a step while the one before it runs, as SGLang's do. exact: policies are told what each
    worker's cache holds, as a router with KV events tells them.
    """

    workers: int = 8
    capacity_tokens: int = 699_103
    rate: float = 1.0
    seed: int = 0
    load_poll_s: float = 1.0
    spread: bool = True
    jitter_s: float = 0.0
    objective_s: float = 1.0
    max_running_requests: int = 256
    chunked_prefill_tokens: int = 8192
    overlap: bool = True
    exact: bool = False
    cost_model: CostModel = H200_QWEN3_8B

    def __post_init__(self) -> None:
        for name, value in (("workers", self.workers), ("capacity_tokens", self.capacity_tokens)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name, number in (("rate", self.rate), ("load_poll_s", self.load_poll_s)):
            if not number > 0:
                raise ValueError(f"{name} must be above 0, got {number}")
        if not self.jitter_s >= 0:
            raise ValueError(f"jitter_s must be at least 0, got {self.jitter_s}")

    def engine(self, page_tokens: int) -> EngineConfig:
        """The configuration of each engine. Raises ValueError."""
        return EngineConfig(
            kv_capacity_tokens=self.capacity_tokens,
            page_size=page_tokens,
            max_running_requests=self.max_running_requests,
            chunked_prefill_tokens=self.chunked_prefill_tokens,
            overlap=self.overlap,
        )
