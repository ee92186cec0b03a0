"""One chat call to send: what every workload generator and text trace yields, and every driver consumes.

A frozen record and its spelling as an OpenAI call. Not here: sending (stream_client.py), pacing (drive.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

Json: TypeAlias = Mapping[str, object]

CHAT_PATH = "/v1/chat/completions"
WORKER_HEADER = "x-trieway-worker"
"""Response header in which a Trieway router says which worker served."""


def chat_headers(session_id: str | None) -> dict[str, str]:
    """Request headers of a call: they ask a Trieway router to say who served, and name the conversation."""
    headers = {"content-type": "application/json", "x-trieway-explain": "1"}
    if session_id is not None:
        headers["x-session-id"] = session_id
    return headers


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """A call of one session. It starts no earlier than `arrival_s` (seconds since the start of the run) and no
    earlier than `gap_s` after the end of the session's previous turn. Turns of a session carry their whole history,
    so prompts do not depend on what the server answers.
    """

    session_id: str
    turn: int
    arrival_s: float
    messages: Sequence[Json]
    max_tokens: int
    gap_s: float = 0.0
    tools: Sequence[Json] | None = None
    workload: str = ""

    def body(self, model: str, *, stream: bool = True) -> dict[str, object]:
        """The body of `POST /v1/chat/completions`.

        Temperature 0, so that runs repeat; `ignore_eos` (an SGLang field that others ignore) asks for exactly
        `max_tokens` tokens, so that every policy pays for the same answers. A stream carries its usage.
        """
        body: dict[str, object] = {
            "model": model,
            "messages": self.messages,
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "ignore_eos": True,
        }
        if self.tools is not None:
            body["tools"] = self.tools
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body


def with_answers(request: LoadRequest, said: Mapping[int, str]) -> LoadRequest:
    """The request with what the server really said in place of scripted answers: `said` has texts by position among
    the messages. Messages with tool calls stay as scripted, since what follows answers those calls.
    """
    messages: Sequence[Json] = [
        {**message, "content": said[position]}
        if said.get(position) and message["role"] == "assistant" and "tool_calls" not in message
        else message
        for position, message in enumerate(request.messages)
    ]
    return replace(request, messages=messages)
