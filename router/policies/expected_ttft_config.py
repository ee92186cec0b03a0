"""The knobs of expected_ttft. What each is worth: docs/tuning.md."""

from __future__ import annotations

from dataclasses import dataclass

from router.knob import knob, require


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedTtftConfig:
    capacity_tokens: int = knob(400_000, "tokens of KV cache per worker, until the worker reports or shows its own")
    capacity_blocks: int = knob(262_144, "prompt blocks remembered per worker, at most; about 150 bytes each")
    decode_weight: float = knob(0.2, "charge for delaying one running answer, as a share of the delay, on a full cache")
    displaced_weight: float = knob(0.2, "charge for evicting cached tokens, as a share of what they may cost again")
    memory_room: float = knob(0.7, "share of a KV cache in use beyond which requests are expected to wait for memory")
    memory_weight: float = knob(1.0, "how much the wait for KV memory counts")
    room_s: float = knob(
        1.5, "seconds of wait at a worker from which on requests are held at the router, shortest first; 0: never"
    )

    def __post_init__(self) -> None:
        require(self.capacity_tokens >= 1024, "must be at least 1,024")
        require(self.capacity_blocks >= 1, "must be at least 1")
        require(0.0 < self.memory_room <= 1.0, "memory_room must be above 0 and at most 1")
        require(0.0 <= self.room_s <= 3600.0, "room_s must be between 0 and 3,600")
        for name in ("decode_weight", "displaced_weight", "memory_weight"):
            require(0.0 <= getattr(self, name) <= 100.0, f"{name} must be between 0 and 100")
