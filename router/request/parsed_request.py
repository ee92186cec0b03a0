"""What parse makes of a body: a model call as far as routing reads it.

A module of its own because parse is compiled, and a record of msgspec cannot be (CONTRIBUTING.md).
"""

from __future__ import annotations

from typing import Any

import msgspec

Body = dict[str, Any]


class ParsedRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A model call as far as routing reads it. `body` is the decoded JSON object, for `prompt_key` only."""

    endpoint: str
    body: Body
    model: str | None
    stream: bool
    session: str | None
    previous_response: str | None
    max_output_tokens: int | None
