"""The knobs of the simulated engine, with SGLang's meanings and defaults. Validated when built."""

from __future__ import annotations

from dataclasses import dataclass

SCHEDULE_POLICIES = ("fcfs", "lpm")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """One engine. Raises ValueError, naming the field, for values that cannot work.

    kv_capacity_tokens: KV memory; SGLang 0.5.17 with Qwen3-8B's shape on one H200 had 699,103 tokens (measured).
    page_size: tokens per page; prefixes match in whole pages.
    max_running_requests: bound on requests that hold KV.
    chunked_prefill_tokens: most new tokens of one prefill step.
    max_prefill_tokens: a step takes no further request once it holds this many new tokens.
    schedule_policy: order of the waiting queue, "fcfs" or "lpm" (longest prefix match; FCFS beyond 128 waiting).
    new_token_ratio: share of a running request's remaining limit that admission keeps free for it. It starts here,
      falls linearly to `new_token_ratio_min` over `new_token_ratio_decay_steps` decode steps, and is re-estimated when
      memory runs out (SGLang: SGLANG_INIT_NEW_TOKEN_RATIO and its factor 0.14, 600 steps).
    clip_new_tokens: no request is expected to make more than this (SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION).
    retract_decode_steps: steps of reserve in that re-estimate (SGLANG_RETRACT_DECODE_STEPS).
    overlap: each step is planned while the one before it runs (SGLang without --disable-overlap-schedule), so that what
      arrives during a step is not in the next but in the one after it.
    """

    kv_capacity_tokens: int = 699_103
    page_size: int = 1
    max_running_requests: int = 256
    chunked_prefill_tokens: int = 8192
    max_prefill_tokens: int = 16_384
    schedule_policy: str = "fcfs"
    new_token_ratio: float = 0.7
    new_token_ratio_min: float = 0.098
    new_token_ratio_decay_steps: int = 600
    clip_new_tokens: int = 4096
    retract_decode_steps: int = 20
    overlap: bool = False

    def __post_init__(self) -> None:
        for name in (
            "kv_capacity_tokens",
            "page_size",
            "max_running_requests",
            "chunked_prefill_tokens",
            "max_prefill_tokens",
            "new_token_ratio_decay_steps",
            "clip_new_tokens",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.retract_decode_steps < 0:
            raise ValueError(f"retract_decode_steps must be at least 0, got {self.retract_decode_steps}")
        for name in ("kv_capacity_tokens", "chunked_prefill_tokens"):
            if getattr(self, name) < self.page_size:
                raise ValueError(f"{name} must hold one page of {self.page_size}, got {getattr(self, name)}")
        if not 0 <= self.new_token_ratio_min <= self.new_token_ratio <= 1:
            raise ValueError(
                "new_token_ratio_min and new_token_ratio must be in order within [0, 1], "
                f"got {self.new_token_ratio_min} and {self.new_token_ratio}"
            )
        if self.schedule_policy not in SCHEDULE_POLICIES:
            raise ValueError(f"schedule_policy must be one of {SCHEDULE_POLICIES}, got {self.schedule_policy!r}")
