"""What deploy/locked.py selects from the lock is what an image needs, no more, and always with hashes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from scripts import load_script

ROOT = Path(__file__).parents[2]
LOCK = """\
a==1 \\
    --hash=sha256:aa
    # via trieway (pyproject.toml)
b-c==2 ; sys_platform != 'win32' \\
    --hash=sha256:bb
    # via
    #   a
    #   x
d==3 ; python_full_version < '3.12' \\
    --hash=sha256:dd
    # via b-c
d==4 ; python_full_version >= '3.12' \\
    --hash=sha256:de
    # via b-c
x==4 \\
    --hash=sha256:ee
    # via trieway (pyproject.toml)
y==5 \\
    --hash=sha256:ff
    # via x
"""
PROJECT = {"dependencies": ["A>=1,<2"], "optional-dependencies": {"more": ["x>=4"], "other": ["z[w]>=1"]}}


@pytest.fixture(scope="module")
def locked() -> ModuleType:
    return load_script(ROOT / "deploy/locked.py")


def names(text: str) -> list[str]:
    return [line.split("==")[0] for line in text.splitlines() if "==" in line and not line.startswith(" ")]


def test_what_dependencies_ask_for_comes_along_at_any_depth_and_for_every_python(locked: ModuleType) -> None:
    assert names(locked.select(PROJECT, LOCK, [])) == ["a", "b-c", "d", "d"]


def test_an_extra_adds_its_own(locked: ModuleType) -> None:
    assert names(locked.select(PROJECT, LOCK, ["more"])) == ["a", "b-c", "d", "d", "x", "y"]


def test_markers_and_hashes_are_kept(locked: ModuleType) -> None:
    assert "b-c==2 ; sys_platform != 'win32' \\\n    --hash=sha256:bb\n" in locked.select(PROJECT, LOCK, [])


def test_an_unknown_extra_and_a_missing_pin_are_named(locked: ModuleType) -> None:
    with pytest.raises(locked.BadLock, match="no extra 'nope'; there are: more, other"):
        locked.select(PROJECT, LOCK, ["nope"])
    with pytest.raises(locked.BadLock, match="does not pin z"):
        locked.select(PROJECT, LOCK, ["other"])


@pytest.mark.parametrize("extras", [[], ["loadtest"]])
def test_every_pin_of_the_real_lock_that_is_selected_has_a_hash(extras: list[str]) -> None:
    shown = subprocess.run(
        [sys.executable, "deploy/locked.py", *extras], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    selected = names(shown)

    assert {"aiohttp", "uvicorn", "multidict"} <= set(selected)
    assert "mypy" not in selected
    assert ("locust" in selected) == bool(extras)
    assert len(re.findall(r"^\S+==.*\\\n    --hash=sha256:", shown, flags=re.MULTILINE)) == len(selected)
