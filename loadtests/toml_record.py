"""A table of a TOML file as a frozen record: unknown keys and wrong values name the key, and the nearest one there is.

Called by scenario.py. Not here: what the keys mean.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec

_Record = TypeVar("_Record")


class KeyProblem(Exception):
    """A key or a value that cannot be used. Its message says where it is and what would be right."""


def record(table: object, kind: type[_Record], where: str) -> _Record:
    """`table` as `kind`, a dataclass whose fields all are leaves. `where` is the table's name in messages. Raises
    KeyProblem.
    """
    if not isinstance(table, Mapping):
        raise KeyProblem(f"'{where}' must be a table, [{where}]")
    fields: Any = kind  # a dataclass
    check_keys(table, [field.name for field in dataclasses.fields(fields)], where)
    try:
        return msgspec.convert(dict(table), kind)
    except msgspec.ValidationError as error:
        raise KeyProblem(_with_key(str(error), where)) from error
    except ValueError as error:
        raise KeyProblem(f"[{where}]: {error}") from error


def check_keys(table: Mapping[str, object], known: Collection[str], where: str) -> None:
    """Raises KeyProblem for a key that is not in `known`."""
    for key in table:
        if key not in known:
            place = f"[{where}] has" if where else "there is"
            raise KeyProblem(f"{place} no key '{key}'.{nearest(key, known)} Keys: {', '.join(known)}.")


def nearest(name: str, known: Collection[str]) -> str:
    """A hint, with a space before it; empty when nothing is close."""
    near = get_close_matches(name, known, n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def _with_key(message: str, where: str) -> str:
    """msgspec's message with the key in front: "Expected `int`, got `str` - at `$.workers`" -> "fleet.workers: ..."."""
    missing = re.search(r"missing required field `([^`]*)`", message)
    if missing:
        return f"[{where}] needs the key '{missing.group(1)}'"
    found = re.search(r" - at `\$\.?([^`]*)`$", message)
    path = ".".join(part for part in (where, found.group(1) if found else "") if part)
    return f"{path}: {message.split(' - at ')[0]}"
