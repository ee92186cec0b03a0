"""Policies as people type them."""

from __future__ import annotations

from random import Random

import pytest

from loadtests.replay_policy import PolicyError, named_policy, parsed
from router.policies.prefix_match import PrefixMatch


def test_parameters_reach_the_policy_converted_to_their_types() -> None:
    name, configs = parsed("prefix_match:load_factor=2,load_slack=8")

    assert name == "prefix_match"
    assert (configs.prefix_match.load_factor, configs.prefix_match.load_slack) == (2.0, 8)
    assert isinstance(named_policy("prefix_match:load_slack=8", Random(0)), PrefixMatch)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("prefix_mach", "Did you mean 'prefix_match'"),
        ("prefix_match:load_facto=2", "Did you mean 'load_factor'"),
        ("prefix_match:load_factor", "write parameters as prefix_match:param=value"),
        ("prefix_match:load_factor=much", "prefix_match: Expected `float`"),
        ("prefix_match:load_factor=0.5", "prefix_match: .*at least 1.0"),
        ("round_robin:x=1", "round_robin has no parameters"),
    ],
)
def test_what_cannot_be_understood_is_named(typed: str, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        parsed(typed)
