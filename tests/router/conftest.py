"""What tests of the router share; upstreams and running routers are in tests/support/router_fakes.py."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def chat() -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
