"""The audit of the lock: what it finds in canned answers of an index, and what it says where there are none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCK = """\
a==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:ab
    # via trieway (pyproject.toml)
b-c==2.1.post1 ; sys_platform != 'win32' \\
    --hash=sha256:bb
    # via a
"""


@pytest.fixture(scope="module")
def audit() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "deploy"))
    import audit as found  # the program behind `make audit`

    yield found
    sys.path.remove(str(ROOT / "deploy"))


def says(*digests: str, yanked: bool = False, holes: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """A page of the index about one version."""
    files = [
        {"digests": {"sha256": each}, "yanked": yanked, "yanked_reason": "broken" if yanked else None}
        for each in digests
    ]
    return {"urls": files, "vulnerabilities": holes or []}


FINE = {"a": says("aa", "ab", "ac"), "b-c": says("bb")}
HOLE = {"id": "PYSEC-1", "aliases": ["CVE-2"], "fixed_in": ["1.1"], "withdrawn": None}


def found(audit: ModuleType, pages: dict[str, dict[str, Any] | None], *ignored: str) -> list[str]:
    wrong, unasked = audit.audit(LOCK, lambda name, version: pages[name], ignored)
    assert unasked is None
    return list(wrong)


def test_a_lock_whose_files_the_index_has_is_fine(audit: ModuleType) -> None:
    assert found(audit, FINE) == []


def test_a_known_vulnerability_is_named_with_its_fix_unless_it_is_accepted_or_withdrawn(audit: ModuleType) -> None:
    holed = {**FINE, "a": says("aa", "ab", holes=[HOLE])}

    assert found(audit, holed) == ["a 1.0: PYSEC-1 (CVE-2), fixed in 1.1"]
    assert found(audit, holed, "CVE-2") == []
    assert found(audit, {**FINE, "a": says("aa", "ab", holes=[{**HOLE, "withdrawn": "2026-01-01"}])}) == []


def test_withdrawn_and_removed_versions_are_named(audit: ModuleType) -> None:
    pages = {"a": says("aa", "ab", yanked=True), "b-c": None}

    assert found(audit, pages) == [
        "a 1.0: withdrawn (broken)", "b-c 2.1.post1: the index does not have it any more",
    ]  # fmt: skip


def test_a_hash_that_belongs_to_no_file_of_the_index_is_found(audit: ModuleType) -> None:
    assert found(audit, {**FINE, "a": says("aa", "zz")}) == ["a 1.0: 1 locked hashes belong to no file of the index"]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("d>=3 \\\n    --hash=sha256:dd\n", "d: not pinned to one version"),
        ("d @ file:///d.whl \\\n    --hash=sha256:dd\n", "d: not pinned to one version"),
        ("d==3\n    # via a\n", "d: not pinned to sha256 hashes of its files"),
        ("d==3 \\\n    --hash=md5:dd\n", "d: not pinned to sha256 hashes of its files"),
    ],
)
def test_what_is_not_pinned_is_found_without_an_index(audit: ModuleType, line: str, what: str) -> None:
    def ask(name: str, version: str) -> dict[str, Any]:
        raise audit.Unreachable("no network")

    assert audit.audit(LOCK + line, ask) == ([what], "no network")


def test_an_index_that_knows_no_version_at_all_is_one_that_was_not_asked(audit: ModuleType) -> None:
    assert audit.audit(LOCK, lambda name, version: None) == ([], "it has no pages about single versions")


def test_the_projects_own_lock_is_pinned_whole_and_says_where_nobody_could_be_asked() -> None:
    closed = {"PIP_INDEX_URL": "http://127.0.0.1:1/simple", "PATH": ""}
    argv = [sys.executable, str(ROOT / "deploy" / "audit.py")]
    done = subprocess.run(argv, cwd=ROOT, env=closed, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")
    assert "NOT CHECKED for withdrawn versions and known vulnerabilities" in done.stdout
    assert ", 0 findings" in done.stdout
