"""Memory that large bodies took stays with the router for the next ones."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from router.allocator import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def bodies():
    for size in (300_000, 400_000, 500_000):
        kept = [b"x" * size for _ in range(4)]
for _ in range(20):
    bodies()
before = faults()
for _ in range(20):
    bodies()
print(faults() - before)
"""


def faults(how: str) -> int:
    """Of 20 rounds of large bodies, after as many others."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are as they are")
def test_pages_of_large_bodies_are_not_given_back_and_taken_again() -> None:
    assert faults("as it is") > 2_000
    assert faults("keep") < 200
