"""How parts of an app start work that outlives a call: through its owner, who cancels it when the app ends."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None]], object]
