"""Configurations of replay that cannot work are refused before anything runs."""

from __future__ import annotations

import pytest

from loadtests.replay_config import ReplayConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [("workers", 0), ("capacity_tokens", 0), ("rate", 0.0), ("load_poll_s", -1.0), ("jitter_s", -1.0)],
)
def test_a_configuration_that_cannot_work_names_its_field(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        ReplayConfig(**{field: value})  # type: ignore[arg-type]
