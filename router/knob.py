"""One way to declare a configuration field: its default and its help text, in one place beside what it tunes.

Flags, environment variables, TOML keys and the reference in the docs are all derived from these fields.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import TypeVar

T = TypeVar("T")


def knob(default: T, help_text: str) -> T:
    """A frozen dataclass field with a default and a help text that states its unit."""
    described: T = field(default=default, metadata={"help": help_text})
    return described


def section(factory: Callable[[], T]) -> T:
    """A field that holds a nested configuration, built with its own defaults."""
    nested: T = field(default_factory=factory)
    return nested


def require(ok: bool, message: str) -> None:
    """For `__post_init__`: raises ValueError, which the configuration loader reports with the key's path."""
    if not ok:
        raise ValueError(message)
