"""Audits requirements.lock: `audit.py [--ignore ID ...]`. Exit code 1 for a finding, 0 when there is none.

Without a network: everything is pinned to one version and to hashes of its files. With the package index: no pinned
version was withdrawn or removed, each file that the lock accepts is one the index has for it, and no vulnerability is
known. Where the index does not answer such questions, as many mirrors do not, it says so and the rest counts.
Standard library only. Not part of the installed packages.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from locked import read_pins

TIMEOUT_S = 30.0
AT_ONCE = 8
TRIES = 3
"""So many versions that an index knows nothing of mean that it is one that answers no such questions."""
_PIN = re.compile(r"[A-Za-z0-9._-]+(?:\[[^\]]*\])?==(?P<version>[A-Za-z0-9.!+_-]+)(?: ; .*)?(?: \\)?$")
_HASH = re.compile(r"--hash=(\w+):([0-9a-f]+)")

Ask = Callable[[str, str], dict[str, Any] | None]
"""What the index says of a name and version; None when it has none. Raises Unreachable."""


class Unreachable(Exception):
    """The index does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """One version in the lock. `hashes` are `algorithm:digest`."""

    name: str
    version: str
    hashes: frozenset[str]


def read_lock(text: str) -> tuple[list[Locked], list[str]]:
    """What the lock pins, and what is wrong with how it does."""
    found: list[Locked] = []
    wrong: list[str] = []
    for pin in read_pins(text):
        first = _PIN.match(pin.text.splitlines()[0])
        hashes = frozenset(":".join(each) for each in _HASH.findall(pin.text))
        if first is None:
            wrong.append(f"{pin.name}: not pinned to one version")
        elif not hashes or any(not each.startswith("sha256:") for each in hashes):
            wrong.append(f"{pin.name}: not pinned to sha256 hashes of its files")
        else:
            found.append(Locked(name=pin.name, version=first["version"], hashes=hashes))
    return found, wrong


def findings(pin: Locked, said: dict[str, Any] | None, ignored: Collection[str]) -> Iterator[str]:
    """What speaks against a pinned version, given what the index says of it."""
    here = f"{pin.name} {pin.version}"
    if said is None:
        yield f"{here}: the index does not have it any more"
        return
    files = said.get("urls", [])
    if files and all(file.get("yanked") for file in files):
        reason = next((file["yanked_reason"] for file in files if file.get("yanked_reason")), "no reason given")
        yield f"{here}: withdrawn ({reason})"
    strange = pin.hashes - {f"sha256:{file['digests']['sha256']}" for file in files}
    if strange:
        yield f"{here}: {len(strange)} locked hashes belong to no file of the index"
    for hole in said.get("vulnerabilities", []):
        names = {hole["id"], *hole.get("aliases", ())}
        if not hole.get("withdrawn") and not names & set(ignored):
            fixed = ", ".join(hole.get("fixed_in") or ()) or "no version yet"
            yield f"{here}: {hole['id']} ({', '.join(sorted(names - {hole['id']})) or 'no alias'}), fixed in {fixed}"


def audit(text: str, ask: Ask, ignored: Collection[str] = ()) -> tuple[list[str], str | None]:
    """All findings for a lock; and why the index could not be asked, or None."""
    pins, wrong = read_lock(text)
    if not pins:
        return wrong or ["the lock pins nothing"], None
    try:
        if all(ask(pin.name, pin.version) is None for pin in pins[:TRIES]):
            raise Unreachable("it has no pages about single versions")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for pin, said in zip(pins, pool.map(lambda pin: ask(pin.name, pin.version), pins), strict=True):
                wrong += findings(pin, said, ignored)
    except Unreachable as why:
        return wrong, str(why)
    return wrong, None


def json_root() -> str:
    """Where the index that pip is set to use keeps its pages about single versions."""
    given = os.environ.get("PIP_INDEX_URL", "").rstrip("/")
    if given:
        return given.removesuffix("/simple") + "/pypi"
    from pip._internal.models.index import PyPI  # the one place where pip says its default

    return str(PyPI.pypi_url)


def asking(root: str) -> Ask:
    """Asks over HTTP. Proxies and certificates are taken from the environment."""

    def ask(name: str, version: str) -> dict[str, Any] | None:
        url = f"{root}/{name}/{version}/json"
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310  pip's own setting
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise Unreachable(f"it answers {error.code}") from error
        except (OSError, ValueError) as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from error

    return ask


def main() -> int:
    """Audits the lock of the current folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ignore", action="append", default=[], metavar="ID", help="a vulnerability that is accepted")
    parser.add_argument("--lock", type=Path, default=Path("requirements.lock"))
    given = parser.parse_args()
    text = given.lock.read_text("utf-8")
    wrong, unasked = audit(text, asking(json_root()), given.ignore)
    for each in wrong:
        sys.stdout.write(f"audit: {each}\n")
    if unasked is not None:
        sys.stdout.write(
            f"audit: NOT CHECKED for withdrawn versions and known vulnerabilities: the index did not say ({unasked})\n"
        )
    sys.stdout.write(f"audit: {len(read_lock(text)[0])} pinned versions, {len(wrong)} findings\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
