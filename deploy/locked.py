"""Prints the part of requirements.lock that one image needs, hashes and all: `locked.py [EXTRA ...]`.

The lock names, for each package, who asks for it; this follows those notes from the dependencies that pyproject.toml
lists. It runs in the images' build stage, so it uses the standard library only. Not part of the installed packages.
"""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9._-]+")


class BadLock(Exception):
    """The lock cannot serve these dependencies; its message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One version of a package in the lock: its lines as they are, and the names of those that asked for it."""

    name: str
    text: str
    wanted_by: frozenset[str]


def read_pins(lock: str) -> list[Pin]:
    """What a lock written by `uv pip compile` pins. A package may come twice, with markers that exclude each other."""
    pins = []
    for block in re.split(r"\n(?=[A-Za-z0-9])", lock.strip()):
        lines = block.splitlines()
        notes = [line.strip().removeprefix("#").strip() for line in lines if line.lstrip().startswith("#")]
        wanted_by = frozenset(normalised(note.removeprefix("via").strip()) for note in notes if note not in ("", "via"))
        text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
        pins.append(Pin(name=normalised(lines[0]), text=text, wanted_by=wanted_by))
    return pins


def normalised(requirement: str) -> str:
    """The package name at the start of a requirement, as PEP 503 writes it. Raises BadLock when there is none."""
    found = _NAME.match(requirement)
    if found is None:
        raise BadLock(f"no package name in {requirement!r}")
    return re.sub(r"[-_.]+", "-", found.group()).lower()


def select(project: dict[str, object], lock: str, extras: list[str]) -> str:
    """The lines of `lock` for the project's dependencies and those of its `extras`. Raises BadLock."""
    match project:
        case {"dependencies": list(always), "optional-dependencies": dict(optional)}:
            pass
        case _:
            raise BadLock("pyproject.toml lists no dependencies")
    unknown = [extra for extra in extras if extra not in optional]
    if unknown:
        raise BadLock(f"there is no extra {unknown[0]!r}; there are: {', '.join(optional)}")
    wanted = {normalised(each) for each in always + [each for extra in extras for each in optional[extra]]}
    pins = read_pins(lock)
    missing = sorted(wanted - {pin.name for pin in pins})
    if missing:
        raise BadLock(f"requirements.lock does not pin {', '.join(missing)}; run `make lock`")
    while more := {pin.name for pin in pins if pin.name not in wanted and pin.wanted_by & wanted}:
        wanted |= more
    return "\n".join(pin.text for pin in pins if pin.name in wanted) + "\n"


def main() -> None:
    """Reads pyproject.toml and requirements.lock in the current folder."""
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    try:
        sys.stdout.write(select(project, Path("requirements.lock").read_text("utf-8"), sys.argv[1:]))
    except BadLock as error:
        sys.exit(f"locked.py: {error}")


if __name__ == "__main__":
    main()
