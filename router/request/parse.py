"""Bytes to a parsed request: what the decision needs, checked. The body itself is forwarded verbatim.

Unknown fields pass, and so does anything a worker may understand better than we do: only what routing reads is
checked here. Raises ClientError subclasses. Called by request.dispatch. Not here: what the prompt is (prompt_key).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec

from router.compiled import interpreted
from router.errors import InvalidBody, InvalidField
from router.request.parsed_request import Body, ParsedRequest

_decode = msgspec.json.Decoder().decode


@interpreted
@dataclass(frozen=True, slots=True, kw_only=True)
class PromptField:
    """A body field that an endpoint needs: one of `names`, of one of `types`."""

    names: tuple[str, ...]
    types: tuple[type, ...]
    shape: str

    def check(self, body: Body) -> None:
        if len(self.names) == 1 and isinstance(body.get(self.names[0]), self.types):
            return
        present = [name for name in self.names if body.get(name) is not None]
        if not present:
            wanted = " or ".join(f"'{name}'" for name in self.names)
            raise InvalidField(f"The body needs {wanted}: {self.shape}.", param=self.names[0])
        for name in present:
            if not isinstance(body[name], self.types):
                found = json_type(body[name])
                raise InvalidField(f"'{name}' must be {self.shape}, not {found}.", param=name)


_TEXT = "a string or a list"
_MESSAGES = PromptField(names=("messages",), types=(list,), shape="a list of messages, each with 'role' and 'content'")
_NATIVE = PromptField(names=("text", "input_ids", "input_embeds"), types=(str, list), shape=_TEXT)

NEEDS: dict[str, tuple[PromptField, ...]] = {
    "/v1/chat/completions": (_MESSAGES,),
    "/v1/messages": (_MESSAGES,),
    "/v1/completions": (PromptField(names=("prompt",), types=(str, list), shape=_TEXT),),
    "/v1/embeddings": (PromptField(names=("input",), types=(str, list), shape=_TEXT),),
    "/v1/responses": (PromptField(names=("input",), types=(str, list), shape=_TEXT),),
    "/v1/rerank": (
        PromptField(names=("query",), types=(str, list), shape=_TEXT),
        PromptField(names=("documents",), types=(list,), shape="a list of documents"),
    ),
    "/v1/score": (
        PromptField(names=("query", "text_1"), types=(str, list), shape=_TEXT),
        PromptField(names=("items", "text_2"), types=(str, list), shape=_TEXT),
    ),
    "/v1/classify": (PromptField(names=("input",), types=(str, list), shape=_TEXT),),
    "/generate": (_NATIVE,),
    "/encode": (_NATIVE,),
    "/classify": (_NATIVE,),
}
"""The model calls, and what each cannot do without."""


def parse(endpoint: str, body: bytes, session: str | None = None) -> ParsedRequest:
    """Decode and check one model call. `session` is what its headers say. Raises InvalidBody or InvalidField."""
    data = _decode_object(body)
    for needed in NEEDS[endpoint]:
        needed.check(data)
    if endpoint in ("/v1/chat/completions", "/v1/messages"):
        _check_messages(data["messages"])
    elif endpoint == "/generate" and not _LOGPROB_FIELDS.isdisjoint(data):
        _check_logprobs(data)
    return ParsedRequest(
        endpoint=endpoint,
        body=data,
        model=_optional(data, "model", str, "a string") or None,
        stream=bool(_optional(data, "stream", bool, "true or false")),
        session=session or _session(data),
        previous_response=_previous_response(data) if endpoint == "/v1/responses" else None,
        max_output_tokens=_max_output_tokens(data),
        names_usage="stream_options" in data,
        names_rank="routed_dp_rank" in data or "data_parallel_rank" in data,
    )


def json_type(value: object) -> str:
    """What JSON calls this value, for messages that teach."""
    names: dict[type, str] = {
        str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object",
    }  # fmt: skip
    return names.get(type(value), "null")


def _decode_object(body: bytes) -> Body:
    try:
        data = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if not body.strip():
            raise InvalidBody("The body is empty. Send a JSON object.") from None
        data = _decode_leniently(body)
    if not isinstance(data, dict):
        raise InvalidBody(f"The body must be a JSON object, not {json_type(data)}.")
    return data


def _decode_leniently(body: bytes) -> object:
    """What SGLang's own parser takes beyond strict JSON (NaN, lone surrogates, UTF-16) is not ours to refuse."""
    try:
        return json.loads(body)
    except RecursionError:
        raise InvalidBody("The body is nested too deeply.") from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise InvalidBody(f"The body is not valid JSON: {error}.") from error


def _check_messages(messages: list[Any]) -> None:
    if not messages:
        raise InvalidField("'messages' is empty. Send at least one message.", param="messages")
    for message in messages:
        if type(message) is not dict or type(message.get("role")) is not str:
            break
    else:
        return
    place = next(count for count, each in enumerate(messages) if each is message)
    if type(message) is not dict:
        raise InvalidField(
            f"messages[{place}] must be an object with 'role' and 'content', not {json_type(message)}.",
            param=f"messages[{place}]",
        )
    raise InvalidField(f"messages[{place}] needs a 'role': a string.", param=f"messages[{place}].role")


_LOGPROB_FIELDS = frozenset({"return_logprob", "logprob_start_len"})


def _check_logprobs(data: Body) -> None:
    """Refuses what ends the scheduler of SGLang 0.5.21 (seen there), and with it all that runs on that worker."""
    starts = data.get("logprob_start_len")
    for start in starts if isinstance(starts, list) else [starts]:
        if isinstance(start, int) and start < -1:
            raise InvalidField(f"'logprob_start_len' must be -1 or more, not {start}.", param="logprob_start_len")
    ids = data.get("input_ids")
    if isinstance(data.get("text"), list) or (isinstance(ids, list) and ids and isinstance(ids[0], list)):
        return
    for name in sorted(_LOGPROB_FIELDS):
        if isinstance(data.get(name), list):
            raise InvalidField(f"'{name}' may be a list only for a list of prompts.", param=name)


def _optional(data: Body, name: str, wanted: type, shape: str) -> Any:
    value = data.get(name)
    if value is not None and not isinstance(value, wanted):
        raise InvalidField(f"'{name}' must be {shape}, not {json_type(value)}.", param=name)
    return value


_SESSION_FIELDS = frozenset({"session_id", "prompt_cache_key", "user"})


def _session(data: Body) -> str | None:
    """The client's own name for a conversation, in the body fields that clients use for it."""
    if _SESSION_FIELDS.isdisjoint(data):
        return None
    for name in ("session_id", "prompt_cache_key", "user"):
        value = data.get(name)
        if isinstance(value, str) and value:
            return value
    return None


def _previous_response(data: Body) -> str | None:
    """The stored response that this one continues."""
    value = data.get("previous_response_id")
    return value if isinstance(value, str) else None


_LIMIT_FIELDS = frozenset({"max_completion_tokens", "max_tokens", "max_output_tokens"})


def _max_output_tokens(data: Body) -> int | None:
    """The limit the client set, if any; a value of the wrong type is the worker's to refuse."""
    if not _LIMIT_FIELDS.isdisjoint(data):
        for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
            value = data.get(name)
            if isinstance(value, int) and value > 0:
                return value
    sampling = data.get("sampling_params")
    if isinstance(sampling, dict):
        value = sampling.get("max_new_tokens")
        if isinstance(value, int) and value > 0:
            return value
    return None
