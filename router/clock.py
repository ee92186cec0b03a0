"""Time as a constructor argument: the monotonic clock of the process. Tests pass one that they advance themselves."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def __call__(self) -> float:
        """Seconds on a monotonic clock; only differences mean anything."""
        ...


monotonic: Clock = time.monotonic
