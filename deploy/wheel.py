"""Part of building the wheel: takes along what deploy/compile.py made, if it was made of these very sources.

Such a wheel is for one Python and one kind of machine, and says so in its name; without, it is for any. Called by
hatchling (pyproject.toml).
"""

from __future__ import annotations

import os
import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledModules(BuildHookInterface[Any]):
    """Adds router/_compiled to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before the wheel is put together. Changes `build_data`."""
        os.environ["TRIEWAY_INTERPRETED"] = "1"
        sys.path.insert(0, self.root)
        from router.compiled import FOLDER, usable

        if version == "standard" and usable():
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
            build_data["force_include"][str(FOLDER)] = "router/_compiled"
