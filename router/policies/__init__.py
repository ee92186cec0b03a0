"""The registry: every policy's name, its configuration and how to build it. The only list of policies.

To add one: its file, its line in `PolicyConfigs` if it has parameters, its row in `POLICIES`, its test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from random import Random

from router.errors import ConfigError
from router.knob import section
from router.policies.base import Policy
from router.policies.dynamo_cost import DynamoCost, DynamoCostConfig
from router.policies.expected_ttft import ExpectedTtft, ExpectedTtftConfig
from router.policies.least_in_flight import LeastInFlight
from router.policies.llmd_weighted import LlmdWeighted, LlmdWeightedConfig
from router.policies.power_of_two import PowerOfTwo
from router.policies.prefix_match import PrefixMatch, PrefixMatchConfig
from router.policies.production_stack_prefix import ProductionStackPrefix, ProductionStackPrefixConfig
from router.policies.round_robin import RoundRobin
from router.policies.session_hash import SessionHash, SessionHashConfig
from router.policies.smg_cache_aware import SmgCacheAware, SmgCacheAwareConfig
from router.policies.uniform_random import UniformRandom

__all__ = ["POLICIES", "Policy", "PolicyConfigs", "PolicyRow", "build_policy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfigs:
    """The parameters of every policy that has some; only those of the chosen one take effect."""

    expected_ttft: ExpectedTtftConfig = section(ExpectedTtftConfig)
    prefix_match: PrefixMatchConfig = section(PrefixMatchConfig)
    session_hash: SessionHashConfig = section(SessionHashConfig)
    smg_cache_aware: SmgCacheAwareConfig = section(SmgCacheAwareConfig)
    dynamo_cost: DynamoCostConfig = section(DynamoCostConfig)
    llmd_weighted: LlmdWeightedConfig = section(LlmdWeightedConfig)
    production_stack_prefix: ProductionStackPrefixConfig = section(ProductionStackPrefixConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRow:
    """One policy: what it does in a line, and how it is built from the configuration and a random source."""

    summary: str
    build: Callable[[PolicyConfigs, Random], Policy]


POLICIES: dict[str, PolicyRow] = {
    "expected_ttft": PolicyRow(
        summary="the worker that answers soonest, with what the request costs the others added",
        build=lambda configs, rng: ExpectedTtft(configs.expected_ttft, rng),
    ),
    "random": PolicyRow(summary="any worker, evenly", build=lambda configs, rng: UniformRandom(rng)),
    "round_robin": PolicyRow(summary="workers in turn", build=lambda configs, rng: RoundRobin()),
    "least_in_flight": PolicyRow(
        summary="the worker with the fewest requests", build=lambda configs, rng: LeastInFlight(rng)
    ),
    "power_of_two": PolicyRow(
        summary="the less loaded of two workers drawn at random", build=lambda configs, rng: PowerOfTwo(rng)
    ),
    "session_hash": PolicyRow(
        summary="a session stays on one worker, within a bound on load",
        build=lambda configs, rng: SessionHash(configs.session_hash, rng),
    ),
    "prefix_match": PolicyRow(
        summary="the worker that has seen the longest prefix, under a load guard",
        build=lambda configs, rng: PrefixMatch(configs.prefix_match, rng),
    ),
    "smg_cache_aware": PolicyRow(
        summary="SMG's default, for comparison: follow a long match, unless request counts are very uneven",
        build=lambda configs, rng: SmgCacheAware(configs.smg_cache_aware, rng),
    ),
    "dynamo_cost": PolicyRow(
        summary="Dynamo's KV router, for comparison: prefill work plus blocks in use",
        build=lambda configs, rng: DynamoCost(configs.dynamo_cost, rng),
    ),
    "llmd_weighted": PolicyRow(
        summary="llm-d's default, for comparison: weighted scores of queue, KV usage and prefix",
        build=lambda configs, rng: LlmdWeighted(configs.llmd_weighted, rng),
    ),
    "production_stack_prefix": PolicyRow(
        summary="production-stack's prefixaware, for comparison: any holder of the deepest match",
        build=lambda configs, rng: ProductionStackPrefix(configs.production_stack_prefix, rng),
    ),
}


def build_policy(name: str, configs: PolicyConfigs, rng: Random) -> Policy:
    """The policy of that name. Raises ConfigError, which names the nearest valid name, when there is none."""
    row = POLICIES.get(name)
    if row is None:
        near = get_close_matches(name, POLICIES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"There is no policy {name!r}.{hint} Policies: {', '.join(POLICIES)}.", param="policy")
    return row.build(configs, rng)
