"""A chat request as the model's own template renders it: what SGLang does between a request and its prompt text.

Needs jinja2 (extra `exact`). Pure once loaded. Called by request.prompt_tokens. Whatever this does not know how to
render as SGLang would (pictures, a continued answer) is refused, and the prompt is then estimated, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

from router.request.parsed_request import Body


class CannotRender(Exception):
    """The request has something in it that only the server knows how to render."""


class ChatTemplate:
    """One model's template. Raises ValueError at the start for a template that jinja2 cannot compile."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        from jinja2 import TemplateError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols], autoescape=False
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise ValueError(f"the chat template cannot be compiled: {error}") from error
        self._special_tokens = dict(special_tokens)
        self._errors = (TemplateError, TypeError, ValueError, KeyError, AttributeError)

    def render(self, body: Body) -> str:
        """The prompt text of a chat body. Raises CannotRender."""
        if body.get("continue_final_message"):
            raise CannotRender("a continued answer")
        asked = body.get("chat_template_kwargs")
        extras = dict(asked) if isinstance(asked, dict) else {}
        if body.get("reasoning_effort") is not None:
            extras.setdefault("reasoning_effort", body["reasoning_effort"])
        try:
            return self._template.render(
                {
                    **self._special_tokens,
                    "messages": messages_of(body["messages"]),
                    "tools": tools_of(body),
                    "documents": None,
                    "add_generation_prompt": True,
                    **extras,
                }
            )
        except self._errors as error:
            raise CannotRender(str(error)) from error


def messages_of(messages: list[Any]) -> list[dict[str, Any]]:
    """Messages in the form in which SGLang hands them to a template. Raises CannotRender."""
    shown = [_message(message) for message in messages]
    if shown[-1]["role"] == "assistant" and isinstance(shown[-1]["content"], str):
        shown[-1] = {"role": "user", "content": shown[-1]["content"]}
    return shown


def tools_of(body: Body) -> list[dict[str, Any]] | None:
    """Tools with their fields in SGLang's order, which templates print. Raises CannotRender."""
    tools = body.get("tools")
    if not tools or body.get("tool_choice") == "none":
        return None
    shown: list[dict[str, Any]] = []
    for tool in tools:
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict):
            raise CannotRender("a tool that is no function")
        shown.append(
            {
                "type": tool.get("type", "function"),
                "function": {
                    "description": function.get("description"),
                    "name": function.get("name"),
                    "parameters": function.get("parameters"),
                    "strict": function.get("strict", False),
                },
            }
        )
    return shown


def _message(message: dict[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in message.items() if value is not None}
    shown["role"] = str(message["role"]).lower()
    shown["content"] = _content(message.get("content"))
    if shown["role"] == "assistant" and isinstance(message.get("tool_calls"), list):
        shown["tool_calls"] = [_with_arguments(call) for call in message["tool_calls"]]
    return shown


def _content(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts: list[str] = []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else part
        if not isinstance(text, str):
            raise CannotRender("content that is not text")
        texts.append(text)
    return " ".join(texts)


def _with_arguments(call: Any) -> Any:
    """A tool call whose arguments are an object rather than its JSON text, as templates want them."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except ValueError as error:
        raise CannotRender("arguments that are no JSON") from error
    return {**call, "function": {**function, "arguments": arguments}}


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    """Without the escapes for HTML that jinja2's own filter makes."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _refuse(message: str) -> NoReturn:
    raise ValueError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)  # noqa: DTZ005  templates mean the server's local time
