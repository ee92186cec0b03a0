"""Saved state: what was written is read, and whatever else is in the file is refused with its reason."""

from __future__ import annotations

import logging
from pathlib import Path
from random import Random
from typing import Any

import pytest

from router.fleet.breaker import BreakerState
from router.fleet.registry import Registry
from router.policies.prefix_match import PrefixMatch, PrefixMatchConfig
from router.state import state_file
from router.state.config import StateConfig
from router.state.keeper import StateKeeper
from router.state.state_file import Unusable
from router.types import WorkerId


def read(path: Path, now_unix_s: float = 100.0) -> dict[str, Any]:
    return state_file.read(path, now_unix_s=now_unix_s, max_age_s=10.0)


def test_what_was_written_is_read_and_only_its_owner_can(tmp_path: Path) -> None:
    path = tmp_path / "state"
    state_file.write(path, {"saved_unix_s": 95.0, "policy": "p", "blocks": [2**64 - 1, 0]})

    assert read(path)["blocks"] == [2**64 - 1, 0]
    assert path.stat().st_mode & 0o077 == 0
    assert [each.name for each in tmp_path.iterdir()] == ["state"]


def test_any_changed_or_missing_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "state"
    state_file.write(path, {"saved_unix_s": 95.0})
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        with pytest.raises(Unusable):
            read(path)
        path.write_bytes(good[:position])
        with pytest.raises(Unusable):
            read(path)


@pytest.mark.parametrize("now_unix_s", [106.0, 94.0])
def test_old_state_and_state_from_the_future_are_not_used(now_unix_s: float, tmp_path: Path) -> None:
    path = tmp_path / "state"
    state_file.write(path, {"saved_unix_s": 95.0})

    with pytest.raises(Unusable, match="max_age_s"):
        read(path, now_unix_s)


class Router:
    """Just enough of one: two workers and a policy."""

    def __init__(self, path: Path, policy: str = "prefix_match", port: int = 1) -> None:
        self.registry = Registry(lambda: 0.0)
        self.a, self.b = self.registry.add("http://a:1", "a"), self.registry.add(f"http://b:{port}", "b")
        self.policy = PrefixMatch(PrefixMatchConfig(), Random(0))
        self.keeper = StateKeeper(StateConfig(file=str(path)), self.registry, self.policy, policy, lambda: 0.0)


def test_a_restarted_router_knows_prefixes_and_breakers_again(tmp_path: Path) -> None:
    before = Router(tmp_path / "state")
    before.policy.index.insert(WorkerId("a"), [1, 2, 3])
    for _ in range(5):
        before.b.vitals.breaker.failed(0.0, "x")
    before.keeper.save()
    after = Router(tmp_path / "state")

    assert after.keeper.load()
    assert after.policy.index.match([1, 2, 9], [after.a, after.b]) == [2, 0]
    assert after.b.vitals.breaker.state is BreakerState.OPEN
    assert after.a.vitals.breaker.closed


def test_nothing_is_taken_over_for_a_name_that_stands_elsewhere_now_or_by_another_policy(tmp_path: Path) -> None:
    before = Router(tmp_path / "state")
    for name in ("a", "b"):
        before.policy.index.insert(WorkerId(name), [1, 2, 3])
    before.keeper.save()
    moved, other = Router(tmp_path / "state", port=2), Router(tmp_path / "state", policy="round_robin")
    moved.keeper.load()
    other.keeper.load()

    assert moved.policy.index.workers() == ("a",)
    assert other.policy.index.workers() == ()


@pytest.mark.parametrize("learned", [{}, {"prompts": {"a": [["x"]]}}, {"prompts": 3}, [], {"prompts": {"a": 3}}])
def test_nonsense_in_a_sound_file_is_warned_of_and_leaves_the_index_empty(
    learned: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    router = Router(tmp_path / "state")
    state_file.write(tmp_path / "state", {**router.keeper.state(), "learned": learned})

    with caplog.at_level(logging.WARNING):
        router.keeper.load()
    assert "in part only" in caplog.text
    assert router.policy.index.workers() == ()


def test_a_file_that_is_missing_or_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    router = Router(tmp_path / "no" / "such" / "folder")

    assert router.keeper.load() is False
    router.keeper.save()
    assert "cannot be written" in caplog.text
