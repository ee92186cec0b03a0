"""An arm: a name, a policy of its own with its own parameters, and the share of sessions it gets.

Arms never share a policy object, and all begin with an empty one, so that none starts with knowledge the others lack.
Called by live. Not here: which workers an arm has (isolate), who belongs to it (assign).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from router.errors import ConfigError
from router.policies import Policy, PolicyConfigs
from router.policies.spec import policy_of
from router.types import ArmName

_SPEC = re.compile(r"^(?P<name>[^=@:]+)=(?P<policy>[^@]+?)(@(?P<share>[^@]*))?$")
_NAME = re.compile(r"^[A-Za-z0-9_.-]{1,32}$")
MAX_ARMS = 8
SHARE_SUM_SLACK = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """`spec` is the policy as it was written; `policy` the object that decides."""

    name: ArmName
    spec: str
    share: float
    policy: Policy

    @property
    def policy_name(self) -> str:
        return self.spec.partition(":")[0]


def arms_of(specs: Sequence[str], configs: PolicyConfigs, rng: Random) -> tuple[Arm, ...]:
    """The arms, control first. Raises ConfigError for anything an experiment could not run with."""
    if len(specs) < 2:
        raise ConfigError(
            f"An experiment needs at least two arms, not {len(specs)}. Write them as NAME=POLICY, the control first.",
            param="experiment.arms",
        )
    if len(specs) > MAX_ARMS:
        raise ConfigError(f"At most {MAX_ARMS} arms, not {len(specs)}.", param="experiment.arms")
    parsed = [_parsed(spec) for spec in specs]
    names = [name for name, _, _ in parsed]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"Two arms are called {name!r}.", param="experiment.arms")
    shares = _shares([share for _, _, share in parsed])
    return tuple(
        Arm(name=ArmName(name), spec=spec, share=share, policy=policy_of(spec, configs, Random(rng.getrandbits(64))))
        for (name, spec, _), share in zip(parsed, shares, strict=True)
    )


def _parsed(spec: str) -> tuple[str, str, float | None]:
    found = _SPEC.match(spec)
    if found is None or not _NAME.match(found["name"]):
        raise ConfigError(
            f"{spec!r} is not an arm. Write NAME=POLICY, NAME=POLICY:PARAM=VALUE or NAME=POLICY@SHARE; a name has "
            "letters, digits, '_', '.' and '-'.",
            param="experiment.arms",
        )
    if found["share"] is None:
        return found["name"], found["policy"], None
    try:
        return found["name"], found["policy"], float(found["share"])
    except ValueError as error:
        raise ConfigError(
            f"{spec!r}: the share after '@' is a number such as 0.5.", param="experiment.arms"
        ) from error


def _shares(given: list[float | None]) -> list[float]:
    if all(share is None for share in given):
        return [1 / len(given)] * len(given)
    shares = [share for share in given if share is not None]
    if len(shares) < len(given):
        raise ConfigError("Give every arm a share, or none of them.", param="experiment.arms")
    if not all(0 < share < 1 for share in shares):
        raise ConfigError("Every share must be between 0 and 1.", param="experiment.arms")
    if abs(sum(shares) - 1) > SHARE_SUM_SLACK:
        raise ConfigError(f"The shares add up to {sum(shares):g}, not to 1.", param="experiment.arms")
    return shares
