"""Which modules run compiled: those of the path that every request takes, where `make compile` has been run.

deploy/compile.py makes machine code of them with mypyc, from these same files, into `router/_compiled`. A manifest
beside it says from which source each was made. If one source has changed since, or another Python runs, all of them are
interpreted: a change takes effect at once, and nothing but speed differs. TRIEWAY_INTERPRETED=1 asks for that too.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

T = TypeVar("T")
ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).parent / "_compiled"
MANIFEST = "manifest.json"

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr
else:

    def mypyc_attr(**_: bool) -> Callable[[T], T]:
        """What mypyc is told of a class, by this very name; no more than that, and nothing where it is interpreted.

        `acyclic`: its objects are never part of a cycle, so that the garbage collector need not know of them.
        """
        return interpreted


def interpreted(cls: T) -> T:
    """Marks a class that stays an ordinary one in a compiled module: mypyc leaves classes with such a decorator alone,
    and can't make one whose fields are declared by `knob`.
    """
    return cls


class CompiledFinder:
    """Finds the modules that have been compiled, before their source is looked for."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = files

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = self.files.get(name)
        return None if file is None else spec_from_file_location(name, file)


def digest(source: Path) -> str:
    """What a manifest says of a source file. Raises OSError."""
    return sha256(source.read_bytes()).hexdigest()


def usable(folder: Path = FOLDER, root: Path = ROOT) -> dict[str, Path]:
    """The compiled modules in `folder`, by name; none unless all are of the sources under `root` and of this Python."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest["suffix"] != EXTENSION_SUFFIXES[0]:
            return {}
        if any(digest(root / source) != made_of for source, made_of in manifest["sources"].items()):
            return {}
        return {name: folder / file for name, file in manifest["modules"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _asked_to_interpret() -> bool:
    return os.environ.get("TRIEWAY_INTERPRETED", "") not in ("", "0")


def use_compiled() -> None:
    """From now on imports take what has been compiled. Once, before any of the modules is imported."""
    if not _asked_to_interpret() and (files := usable()):
        sys.meta_path.insert(0, CompiledFinder(files))


def how_it_runs() -> str:
    """For people: whether this process runs compiled modules, and if not, how it would."""
    finder = next((each for each in sys.meta_path if isinstance(each, CompiledFinder)), None)
    if finder is not None:
        return f"compiled ({len([name for name in finder.files if '.' in name])} modules)"  # the library has no dot
    if _asked_to_interpret():
        return "interpreted, as TRIEWAY_INTERPRETED asks"
    return "interpreted (`make compile` makes it faster)"
