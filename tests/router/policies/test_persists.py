"""What a policy has learned is kept over a restart where it offers it, and nothing is asked of the others."""

from __future__ import annotations

from random import Random

from router.config import load_config
from router.policies import build_policy
from router.policies.persists import dump_of, load_into


def test_a_policy_that_keeps_nothing_is_neither_asked_nor_told() -> None:
    policy = build_policy("round_robin", load_config(None, {}).policies, Random(0))
    load_into(policy, {"anything": 1}, 0.0, ())

    assert dump_of(policy, 0.0) is None
