"""A policy from what a person types: "name" or "name:param=value,param=value". Called by replay and its commands.

Names and parameters are those of router.policies; values are converted to the types of their fields.
"""

from __future__ import annotations

import dataclasses
from difflib import get_close_matches
from random import Random
from typing import Any

import msgspec

from router.policies import POLICIES, Policy, PolicyConfigs, build_policy


class PolicyError(Exception):
    """What was typed names no policy, or a parameter that it does not have, or a value that it does not take."""


def named_policy(typed: str, rng: Random) -> Policy:
    """The policy, with its parameters. Raises PolicyError, which names what would have been right."""
    name, configs = parsed(typed)
    return build_policy(name, configs, rng)


def parsed(typed: str) -> tuple[str, PolicyConfigs]:
    """Name and configuration. Raises PolicyError."""
    name, colon, rest = typed.partition(":")
    if name not in POLICIES:
        raise PolicyError(f"there is no policy {name!r}.{_near(name, list(POLICIES))} Policies: {', '.join(POLICIES)}.")
    if not colon:
        return name, PolicyConfigs()
    sections = {section.name: section for section in dataclasses.fields(PolicyConfigs)}
    if name not in sections:
        raise PolicyError(f"{name} has no parameters, got {rest!r}")
    kind: Any = type(vars_of(PolicyConfigs())[name])
    known = [knob.name for knob in dataclasses.fields(kind)]
    values: dict[str, str] = {}
    for setting in rest.split(","):
        key, equals, value = setting.partition("=")
        if not equals:
            raise PolicyError(f"write parameters as {name}:param=value,param=value, got {setting!r}")
        if key not in known:
            raise PolicyError(f"{name} has no parameter {key!r}.{_near(key, known)} It has: {', '.join(known)}.")
        values[key] = value
    try:
        config = msgspec.convert(values, kind, strict=False)
        configs = dataclasses.replace(PolicyConfigs(), **{name: config})
    except (msgspec.ValidationError, ValueError) as error:
        raise PolicyError(f"{name}: {error}") from error
    return name, configs


def vars_of(record: Any) -> dict[str, Any]:
    """The fields of a dataclass with slots."""
    return {one.name: getattr(record, one.name) for one in dataclasses.fields(record)}


def _near(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
