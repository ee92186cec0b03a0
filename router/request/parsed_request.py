"""What parse makes of a body: a model call as far as routing reads it. In the form that records explains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from router.compiled import mypyc_attr

Body = dict[str, Any]


@mypyc_attr(acyclic=True)
@dataclass(init=False, slots=True, kw_only=True)
class ParsedRequest:
    """A model call as far as routing reads it. `body` is the decoded JSON object, for `prompt_key` only."""

    endpoint: Final[str]
    body: Final[Body]
    model: Final[str | None]
    stream: Final[bool]
    session: Final[str | None]
    previous_response: Final[str | None]
    max_output_tokens: Final[int | None]

    def __init__(
        self,
        *,
        endpoint: str,
        body: Body,
        model: str | None,
        stream: bool,
        session: str | None,
        previous_response: str | None,
        max_output_tokens: int | None,
    ) -> None:
        self.endpoint = endpoint
        self.body = body
        self.model = model
        self.stream = stream
        self.session = session
        self.previous_response = previous_response
        self.max_output_tokens = max_output_tokens
