"""What parse makes of a body: a model call as far as routing reads it. In the form that records explains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from router.compiled import mypyc_attr

Body = dict[str, Any]


@mypyc_attr(acyclic=True)
@dataclass(init=False, slots=True, kw_only=True)
class ParsedRequest:
    """A model call as far as routing reads it. `body` is the decoded JSON object, for exact mode and `prompt_key` only.

    `names_usage` and `names_rank`: the client itself says whether usage is told, and which data-parallel rank it wants.
    """

    endpoint: Final[str]
    body: Final[Body]
    model: Final[str | None]
    stream: Final[bool]
    session: Final[str | None]
    previous_response: Final[str | None]
    max_output_tokens: Final[int | None]
    names_usage: Final[bool]
    names_rank: Final[bool]

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
        names_usage: bool,
        names_rank: bool,
    ) -> None:
        self.endpoint = endpoint
        self.body = body
        self.model = model
        self.stream = stream
        self.session = session
        self.previous_response = previous_response
        self.max_output_tokens = max_output_tokens
        self.names_usage = names_usage
        self.names_rank = names_rank

    def without_body(self) -> ParsedRequest:
        """What is left to know when the prompt has its key: the body is as large as what the client sent, or twice
        that, and a request may wait and stream for minutes."""
        return ParsedRequest(
            endpoint=self.endpoint,
            body={},
            model=self.model,
            stream=self.stream,
            session=self.session,
            previous_response=self.previous_response,
            max_output_tokens=self.max_output_tokens,
            names_usage=self.names_usage,
            names_rank=self.names_rank,
        )
