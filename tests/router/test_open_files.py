"""The limit of open files is raised as far as the system allows, and said when that is too little."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import logging, resource, sys
from router.open_files import allow
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
soft, hard, connections = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(allow(connections), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def allowed(soft: int, hard: int, connections: int) -> tuple[str, str]:
    """What it returned and what the limit then was; and what was logged."""
    argv = [sys.executable, "-c", PROGRAM, *map(str, (soft, hard, connections))]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return done.stdout.strip(), done.stderr.strip()


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such limits there")


def test_a_low_soft_limit_is_raised_to_what_the_connections_need() -> None:
    assert allowed(200, 2000, 100) == ("456 456", "")


def test_a_limit_that_is_high_enough_stays() -> None:
    assert allowed(1500, 2000, 100) == ("1500 1500", "")


def test_too_low_a_hard_limit_is_used_up_and_said() -> None:
    printed, logged = allowed(200, 600, 10_000)

    assert printed == "600 600"
    assert logged.startswith("WARNING 600 open files are allowed (ulimit -Hn): enough for 172 requests at once")


def test_a_hard_limit_that_is_near_enough_is_no_warning() -> None:
    assert allowed(200, 600, 300)[1].startswith("INFO 600 open files")
