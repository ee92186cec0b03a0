"""Time as an argument: the clock and the sleep that a driver uses, so that tests can advance them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

Clock: TypeAlias = Callable[[], float]
"""Seconds on a monotonic clock; only differences mean anything."""
Sleep: TypeAlias = Callable[[float], Awaitable[None]]
"""Waits that many seconds of the same clock."""
