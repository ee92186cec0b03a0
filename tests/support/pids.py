"""Other processes, as tests look at them from outside. Linux."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

DEADLINE_S = 60.0


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for something that another process does; fails the test after a deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"within {DEADLINE_S} s: {what}")
        time.sleep(0.05)
