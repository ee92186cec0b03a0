"""A policy as a person writes it, `name` or `name:param=value,param=value`, to a policy with its own parameters.

Parameters not named keep the value they have in the configuration. Called by experiment.arm and experiment.shadow.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from random import Random
from typing import Any, get_type_hints

import msgspec

from router.errors import ConfigError
from router.policies import POLICIES, Policy, PolicyConfigs, build_policy


def policy_of(spec: str, configs: PolicyConfigs, rng: Random) -> Policy:
    """The policy that `spec` describes. Raises ConfigError, which names what would have been right."""
    name, _, settings = spec.partition(":")
    if name not in POLICIES or not settings:
        return build_policy(name, configs, rng)
    kind = get_type_hints(PolicyConfigs).get(name)
    if kind is None:
        raise ConfigError(f"{name} has no parameters, but {settings!r} was given.", param="policy")
    given = _values(name, settings, [each.name for each in fields(kind)])
    current = getattr(configs, name)
    known = {each.name: getattr(current, each.name) for each in fields(kind)}
    plain = {key: value for key, value in known.items() if not is_dataclass(value)}
    try:
        config = msgspec.convert(plain | given, kind, strict=False)
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigError(f"{name}: {error}", param="policy") from error
    changed: dict[str, Any] = {name: config}
    return build_policy(name, replace(configs, **changed), rng)


def _values(name: str, settings: str, known: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for setting in settings.split(","):
        key, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"Write parameters as {name}:param=value,param=value, not {setting!r}.", param="policy")
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" It has: {', '.join(known)}."
            raise ConfigError(f"{name} has no parameter {key!r}.{hint}", param="policy")
        values[key] = value
    return values
