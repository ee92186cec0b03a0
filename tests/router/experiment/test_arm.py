"""Arms are refused before anything starts when they could not be compared."""

from __future__ import annotations

from random import Random

import pytest

from router.errors import ConfigError
from router.experiment.arm import arms_of
from router.policies import PolicyConfigs
from router.policies.prefix_match import PrefixMatch


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        ([], "at least two arms, not 0"),
        (["a=round_robin"], "at least two arms, not 1"),
        (["a=round_robin", "b=round_robbin"], "Did you mean 'round_robin'"),
        (["a=round_robin", "a=random"], "Two arms are called 'a'"),
        (["a=round_robin@0.5", "b=random@0.4"], "add up to 0.9, not to 1"),
        (["a=round_robin@0.5", "b=random"], "every arm a share, or none"),
        (["a=round_robin@1", "b=random@0"], "between 0 and 1"),
        (["a=round_robin@half", "b=random@0.5"], "share after '@' is a number"),
        (["round_robin", "b=random"], "'round_robin' is not an arm"),
        (["a b=round_robin", "c=random"], "is not an arm"),
        (["a=random:x=1", "b=random"], "random has no parameters"),
        (["a=prefix_match:load_factr=2", "b=random"], "Did you mean 'load_factor'"),
        (["a=prefix_match:load_factor=0.5", "b=random"], "at least 1.0"),
        (["a=prefix_match:load_factor", "b=random"], "param=value"),
        ([f"a{i}=random" for i in range(9)], "At most 8 arms"),
    ],
)
def test_what_could_not_be_compared_is_refused_with_the_reason(specs: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        arms_of(specs, PolicyConfigs(), Random(1))


def test_arms_have_policies_of_their_own_with_their_own_parameters() -> None:
    one, two = arms_of(["a=prefix_match:load_factor=2.5,load_slack=0", "b=prefix_match"], PolicyConfigs(), Random(1))

    assert isinstance(one.policy, PrefixMatch)
    assert isinstance(two.policy, PrefixMatch)
    assert (one.policy._config.load_factor, one.policy._config.load_slack) == (2.5, 0)
    assert two.policy._config == PolicyConfigs().prefix_match
    assert one.policy.index is not two.policy.index
    assert (one.share, two.share, one.policy_name) == (0.5, 0.5, "prefix_match")
