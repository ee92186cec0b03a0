"""Fault schedules as data: what is read, what is refused, and when a fault is active."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workers.simulated.errors import BadOption
from workers.simulated.faults import KINDS, Fault, parse_faults, read_faults


def test_a_file_is_read_in_order(tmp_path: Path) -> None:
    file = tmp_path / "faults.toml"
    file.write_text(
        '[[fault]]\nkind = "error"\nstatus = 503\nat_s = 1\nfor_s = 2.5\nprobability = 0.5\npath = "/generate"\n'
        '[[fault]]\nkind = "hang"\n'
    )
    first, second = read_faults(file).faults
    assert first == Fault(kind="error", status=503, at_s=1, for_s=2.5, probability=0.5, path="/generate")
    assert second == Fault(kind="hang")


def test_an_empty_file_is_no_faults(tmp_path: Path) -> None:
    file = tmp_path / "faults.toml"
    file.write_text("")
    assert read_faults(file).faults == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x =", ["not TOML"]),
        ("[fault]\nkind = 'hang'", ["[[fault]]"]),
        ("[[faults]]\nkind = 'hang'", ["'faults'", "[[fault]]"]),
        ("[[fault]]\nkind = 'hag'", ["fault 1", "'hag'", "did you mean 'hang'"]),
        ("[[fault]]\nat_s = 1", ["fault 1", "None"]),
        (
            "[[fault]]\nkind = 'hang'\n[[fault]]\nkind = 'hang'\nprobabilty = 1",
            ["fault 2", "did you mean 'probability'"],
        ),
        ("[[fault]]\nkind = 'hang'\nat_s = 'soon'", ["at_s must be a number"]),
        ("[[fault]]\nkind = 'hang'\nat_s = -1", ["at_s must not be negative"]),
        ("[[fault]]\nkind = 'hang'\nfor_s = 0", ["for_s must be above 0"]),
        ("[[fault]]\nkind = 'hang'\nprobability = 1.5", ["probability"]),
        ("[[fault]]\nkind = 'error'\nstatus = 200", ["status"]),
        ("[[fault]]\nkind = 'error'\nstatus = 500.5", ["whole number"]),
        ("[[fault]]\nkind = 'slow_bytes'\nbytes_per_s = 0", ["bytes_per_s"]),
        ("[[fault]]\nkind = 'hang'\npath = 'generate'", ["path must start with '/'"]),
        ("fault = [1]", ["fault 1", "table"]),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_what_is_wrong(tmp_path: Path, text: str, words: list[str]) -> None:
    file = tmp_path / "faults.toml"
    file.write_text(text)
    with pytest.raises(BadOption) as caught:
        read_faults(file)
    for word in [str(file), *words]:
        assert word in str(caught.value)


def test_a_file_that_is_not_there_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match=r"none\.toml"):
        read_faults(tmp_path / "none.toml")


@pytest.mark.parametrize(("now_s", "active"), [(0.9, False), (1.0, True), (2.9, True), (3.0, False)])
def test_a_fault_is_active_from_its_time_for_its_duration(now_s: float, active: bool) -> None:
    assert Fault(kind="hang", at_s=1.0, for_s=2.0).active(now_s) is active


def test_a_fault_without_a_duration_stays() -> None:
    assert Fault(kind="hang", at_s=1.0).active(1e9)


@pytest.mark.parametrize(
    ("given", "path", "applies"),
    [
        ({"kind": "hang"}, "/v1/chat/completions", True),
        ({"kind": "hang"}, "/generate", True),
        ({"kind": "hang"}, "/v1/models", False),
        ({"kind": "hang"}, "/health", False),
        ({"kind": "hang", "path": "/health"}, "/health_generate", True),
        ({"kind": "hang", "path": "/v1/models"}, "/v1/models", True),
        ({"kind": "stall_health"}, "/health", True),
        ({"kind": "stall_health"}, "/generate", False),
    ],
    ids=str,
)
def test_faults_apply_to_model_calls_unless_they_name_a_path(given: dict[str, Any], path: str, applies: bool) -> None:
    assert Fault(**given).applies_to(path) is applies


def test_every_kind_can_be_given_by_name_alone() -> None:
    assert [fault.kind for fault in parse_faults([{"kind": kind} for kind in KINDS]).faults] == list(KINDS)
