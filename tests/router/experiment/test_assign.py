"""Assignment: sticky, in proportion to the shares, and independent between salts."""

from __future__ import annotations

from router.experiment.assign import arm_index, group_of, unit_of
from router.experiment.tally import GROUPS

UNITS = [f"unit {i}" for i in range(4000)]


def test_a_session_comes_before_an_api_key_and_a_key_before_the_request() -> None:
    assert unit_of("s", "c", "r") == unit_of("s", "other", "other")
    assert unit_of(None, "c", "r") == unit_of(None, "c", "other")
    assert unit_of(None, None, "r") != unit_of(None, None, "other")
    assert len({unit_of("x", None, ""), unit_of(None, "x", ""), unit_of(None, None, "x")}) == 3


def test_shares_are_kept() -> None:
    counts = [0, 0, 0]
    for unit in UNITS:
        counts[arm_index("salt", unit, [0.5, 0.3, 0.2])] += 1

    assert [abs(count / len(UNITS) - share) < 0.03 for count, share in zip(counts, [0.5, 0.3, 0.2], strict=True)] == [
        True, True, True,
    ]  # fmt: skip


def test_one_salt_gives_one_assignment_and_another_salt_an_independent_one() -> None:
    first = [arm_index("salt", unit, [0.5, 0.5]) for unit in UNITS]
    again = [arm_index("salt", unit, [0.5, 0.5]) for unit in UNITS]
    other = [arm_index("pepper", unit, [0.5, 0.5]) for unit in UNITS]

    assert first == again
    same = sum(a == b for a, b in zip(first, other, strict=True))
    assert abs(same / len(UNITS) - 0.5) < 0.05


def test_statistical_groups_do_not_follow_arms() -> None:
    groups = {arm: {group_of("salt", unit) for unit in UNITS if arm_index("salt", unit, [0.5, 0.5]) == arm}
              for arm in (0, 1)}  # fmt: skip

    assert len(groups[0] & groups[1]) > GROUPS * 0.95
