"""What can go wrong with a worker on purpose, and when: faults as data, read from TOML or JSON and checked.

Pure: a schedule answers which faults are active at a time; fault_injector.py makes them happen. `KINDS` is the list.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from workers.simulated.errors import BadOption

KINDS: Mapping[str, str] = {
    "slow_start": "health and model calls answer 503 as if the model were still loading",
    "hang": "requests are accepted and not answered, for `seconds` or until the client leaves",
    "error": "requests are answered with `status`",
    "refuse": "nothing listens on the port; open connections live on",
    "reset": "the connection is reset (RST) after `after_events` events or in place of a whole answer",
    "cut": "the connection is closed (FIN) inside the answer, after `after_events` events",
    "truncate": "a stream ends in order after `after_events` events, without its [DONE]",
    "stall_health": "/health and /health_generate do not answer",
    "wrong_length": "whole answers declare `extra_bytes` more than they have, then the connection closes",
    "slow_bytes": "answers are sent at `bytes_per_s`",
    "stale_load": "/v1/loads keeps answering what was true when the fault began",
    "flush_cache": "at `at_s` the cache is emptied of all that no request uses",
    "restart": "at `at_s` all connections reset, all requests end, the cache is emptied; back after `for_s`",
}
INSTANT = frozenset({"flush_cache", "restart"})
DEFAULT_RESTART_S = 1.0

MODEL_CALLS = ("/v1/", "/generate")
"""Paths a fault applies to when it names none; /v1/models and /v1/loads are not among them."""
_NOT_MODEL_CALLS = ("/v1/models", "/v1/loads", "/v1/tokenize", "/v1/detokenize")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. Times are seconds since the worker began to listen; `for_s` None means until it stops.

    `path` restricts it to paths that start so. `probability` is per request. The other fields are for some kinds only.
    """

    kind: str
    at_s: float = 0.0
    for_s: float | None = None
    probability: float = 1.0
    path: str | None = None
    status: int = 500
    seconds: float | None = None
    after_events: int = 3
    extra_bytes: int = 10
    bytes_per_s: float = 100.0

    def active(self, now_s: float) -> bool:
        """Whether the fault's time has come and not gone."""
        return self.at_s <= now_s and (self.for_s is None or now_s < self.at_s + self.for_s)

    def applies_to(self, path: str) -> bool:
        if self.path is not None:
            return path.startswith(self.path)
        if self.kind == "stall_health":
            return path in ("/health", "/health_generate")
        if self.kind == "stale_load":
            return path == "/v1/loads"
        if self.kind == "slow_start" and path in ("/health", "/health_generate", "/ready"):
            return True
        return path.startswith(MODEL_CALLS) and not path.startswith(_NOT_MODEL_CALLS)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultSchedule:
    """Faults in the order given."""

    faults: Sequence[Fault] = ()


def read_faults(path: Path) -> FaultSchedule:
    """From a TOML file of [[fault]] tables. Raises BadOption, naming the file, the table and the key."""
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadOption(f"--faults {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise BadOption(f"--faults {path}: not TOML: {error}") from error
    unknown = sorted(set(data) - {"fault"})
    if unknown:
        raise BadOption(f"--faults {path}: unknown table {unknown[0]!r}; write each fault as [[fault]]")
    tables = data.get("fault", [])
    if not isinstance(tables, list):
        raise BadOption(f"--faults {path}: write each fault as [[fault]], with two brackets")
    try:
        return parse_faults(tables)
    except BadOption as error:
        raise BadOption(f"--faults {path}: {error}") from error


def parse_faults(tables: Iterable[Any]) -> FaultSchedule:
    """From decoded tables. Raises BadOption, naming the table (from 1) and the key."""
    return FaultSchedule(faults=tuple(_parse(table, number) for number, table in enumerate(tables, 1)))


def _parse(table: Any, number: int) -> Fault:
    if not isinstance(table, dict):
        raise BadOption(f"fault {number}: expected a table of keys, got {type(table).__name__}")
    known = {field.name: field for field in fields(Fault)}
    for key in table:
        if key not in known:
            raise BadOption(f"fault {number}: unknown key {key!r}{_nearest(key, known)}")
    kind = table.get("kind")
    if kind not in KINDS:
        raise BadOption(f"fault {number}: kind {kind!r} is none of {', '.join(KINDS)}{_nearest(str(kind), KINDS)}")
    numbers = ("at_s", "for_s", "probability", "seconds", "bytes_per_s")
    for key in numbers:
        if key in table and (isinstance(table[key], bool) or not isinstance(table[key], int | float)):
            raise BadOption(f"fault {number}: {key} must be a number, got {table[key]!r}")
    for key in ("status", "after_events", "extra_bytes"):
        if key in table and (isinstance(table[key], bool) or not isinstance(table[key], int)):
            raise BadOption(f"fault {number}: {key} must be a whole number, got {table[key]!r}")
    if "path" in table and not (isinstance(table["path"], str) and table["path"].startswith("/")):
        raise BadOption(f"fault {number}: path must start with '/', got {table['path']!r}")
    fault = Fault(**table)
    _check_ranges(fault, number)
    return fault


def _check_ranges(fault: Fault, number: int) -> None:
    checks = (
        (fault.at_s >= 0, "at_s must not be negative"),
        (fault.for_s is None or fault.for_s > 0, "for_s must be above 0"),
        (0 < fault.probability <= 1, "probability must be above 0 and at most 1"),
        (400 <= fault.status <= 599, "status must be between 400 and 599"),
        (fault.seconds is None or fault.seconds >= 0, "seconds must not be negative"),
        (fault.after_events >= 0, "after_events must not be negative"),
        (fault.extra_bytes != 0, "extra_bytes must not be 0"),
        (fault.bytes_per_s > 0, "bytes_per_s must be above 0"),
    )
    for fine, message in checks:
        if not fine:
            raise BadOption(f"fault {number} ({fault.kind}): {message}")


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
