"""Trieway's router: public names only, each imported when it is first asked for.

A module below this package is then as quick to import as what it needs itself, without the web framework. Compiled
modules, where there are any, are found first (router.compiled).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from router.compiled import use_compiled

if TYPE_CHECKING:
    from router.app import create_app
    from router.config import RouterConfig
    from router.errors import RouterError
    from router.policies.base import Policy
    from router.records import Decision, Outcome

__all__ = ["Decision", "Outcome", "Policy", "RouterConfig", "RouterError", "create_app"]

_HOMES = {
    "Decision": "router.records",
    "Outcome": "router.records",
    "Policy": "router.policies.base",
    "RouterConfig": "router.config",
    "RouterError": "router.errors",
    "create_app": "router.app",
}

use_compiled()


def __getattr__(name: str) -> object:
    """A public name, from the module where it lives. Raises AttributeError."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = vars(import_module(_HOMES[name]))[name]
    return value
