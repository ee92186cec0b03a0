"""Server-sent events of the OpenAI routes, byte for byte in SGLang's field order. Written for speed.

Every event of a choice shares its first and last bytes, made once; only the text between them is encoded per event.
Called by openai_api and by the routes that borrow its shapes. Not here: requests, the engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from workers.simulated.generation import Generation
from workers.simulated.reply import Reply

DONE = b"data: [DONE]\n\n"
LogprobsSince = Callable[[Generation, int], dict[str, Any]]

_encode = msgspec.json.Encoder().encode


def unix_time() -> int:
    """Seconds since 1970, for `created` fields."""
    return time.time_ns() // 1_000_000_000


def usage_of(generations: Sequence[Generation], n: int, *, cache_report: bool) -> dict[str, Any]:
    """SGLang's usage: the prompt counts once per prompt, and cached tokens only if reported and above zero."""
    firsts = generations[::n]
    prompt = sum(len(generation.prompt) for generation in firsts)
    completion = sum(generation.produced for generation in generations)
    cached = sum(generation.cached_tokens for generation in firsts) if cache_report else 0
    return usage(prompt, completion, cached)


def usage(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    """The usage object in SGLang's field order; `cached` of 0 is reported as null."""
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
        "prompt_tokens_details": {"cached_tokens": cached} if cached else None,
        "reasoning_tokens": 0,
    }


def weight_versions(tokens: int) -> list[dict[str, Any]]:
    """Which weights made which tokens: always the same ones here."""
    return [{"version": "default", "start": 0, "end": tokens}]


class TextStream:
    """Writes one streamed answer of /v1/chat/completions or /v1/completions to a reply.

    `advance` is the listener of every generation of the request. With `each_usage` every event carries usage so far;
    with `details` an event before the last says where cached tokens came from. `logprobs` makes that field for what a
    generation has said since its n-th token.
    """

    def __init__(
        self,
        reply: Reply,
        *,
        chat: bool,
        model: str,
        generations: int,
        each_usage: bool,
        cache_report: bool,
        echo: Sequence[str] = (),
        details: bool = False,
        logprobs: LogprobsSince | None = None,
    ) -> None:
        self._reply = reply
        self._chat = chat
        self._model = model
        self._each_usage = each_usage
        self._cache_report = cache_report
        self._echo = echo
        self._details = details
        self._logprobs = logprobs
        self._told = [0] * generations
        self._created = unix_time()
        self._offsets = [0] * generations
        self._affixes: list[tuple[bytes, bytes] | None] = [None] * generations
        self._index_of: dict[str, int] = {}
        self.finished: list[int] = []

    def register(self, rid: str, index: int) -> None:
        """Before its generation starts: `rid` is choice `index`."""
        self._index_of[rid] = index

    def advance(self, generation: Generation) -> None:
        """Writes what is new of `generation`."""
        if self._reply.closed:
            return
        index = self._index_of[generation.rid]
        events: list[bytes] = []
        affixes = self._affixes[index]
        first = affixes is None
        if affixes is None:
            affixes = self._affixes[index] = self._make_affixes(generation.rid, index)
        end = generation.text_end
        delta = generation.plan.text[self._offsets[index] : end]
        self._offsets[index] = end
        logprobs = None if self._logprobs is None else self._logprobs(generation, self._told[index])
        self._told[index] = generation.produced
        if self._chat:
            if first:
                events.append(self._chat_event(generation, index, {"role": "assistant", "content": ""}))
            if delta:
                events.append(self._piece(generation, affixes, delta, logprobs))
        else:
            if first and self._echo:
                delta = self._echo[index] + delta
            events.append(self._completion_event(generation, index, affixes, delta, logprobs))
        if generation.finish_reason is not None:
            self.finished.append(index)
        self._reply.write(b"".join(events))

    def finish(self, generations: Sequence[Generation], n: int, *, include_usage: bool) -> None:
        """Finish reasons, usage, [DONE], and the end of the reply."""
        events: list[bytes] = []
        last = generations[self.finished[-1]].rid if self.finished else generations[-1].rid
        if self._chat:
            for index in self.finished:
                reason = generations[index].finish_reason or {}
                events.append(
                    self._chat_event(
                        None, index, {}, rid=last, finish=reason.get("type"), matched=reason.get("matched")
                    )
                )
        cached = generations[0].cached_tokens
        if self._details and cached:
            event: dict[str, Any] = {
                "choices": [],
                "usage": None,
                "sglext": {"cached_tokens_details": {"device": cached, "host": 0}},
            }
            events.append(b"data: %s\n\n" % _encode(self._head(last) | event))
        if include_usage:
            total = usage_of(generations, n, cache_report=self._cache_report)
            if not self._chat:  # this route alone leaves nulls out of its usage event
                total = {key: value for key, value in total.items() if value is not None}
            events.append(b"data: %s\n\n" % _encode(self._head(last) | {"choices": [], "usage": total}))
        events.append(DONE)
        self._reply.write(b"".join(events))
        self._reply.end()

    def _head(self, rid: str) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return {"id": rid, "object": kind, "created": self._created, "model": self._model}

    def _make_affixes(self, rid: str, index: int) -> tuple[bytes, bytes]:
        head = _encode(self._head(rid))[:-1]
        if self._chat:
            return (
                b'data: %s,"choices":[{"index":%d,"delta":{"reasoning_content":null,"content":' % (head, index),
                b'},"logprobs":null,"finish_reason":null,"matched_stop":null}]}\n\n',
            )
        return (
            b'data: %s,"choices":[{"index":%d,"text":' % (head, index),
            b',"logprobs":null,"finish_reason":null,"matched_stop":null}],"usage":null}\n\n',
        )

    def _piece(
        self, generation: Generation, affixes: tuple[bytes, bytes], delta: str, logprobs: dict[str, Any] | None
    ) -> bytes:
        if self._each_usage or logprobs is not None:
            index = self._index_of[generation.rid]
            return self._chat_event(generation, index, {"content": delta}, logprobs=logprobs)
        return b"%s%s%s" % (affixes[0], _encode(delta), affixes[1])

    def _chat_event(
        self,
        generation: Generation | None,
        index: int,
        delta: dict[str, Any],
        *,
        rid: str = "",
        finish: str | None = None,
        matched: object = None,
        logprobs: dict[str, Any] | None = None,
    ) -> bytes:
        choice = {
            "index": index,
            "delta": {"reasoning_content": None, **delta},
            "logprobs": logprobs,
            "finish_reason": finish,
            "matched_stop": matched,
        }
        event = self._head(generation.rid if generation else rid) | {"choices": [choice]}
        if self._each_usage and generation is not None and delta.get("content"):
            event["usage"] = self._usage_now(generation, cached=self._cache_report)
        return b"data: %s\n\n" % _encode(event)

    def _completion_event(
        self,
        generation: Generation,
        index: int,
        affixes: tuple[bytes, bytes],
        delta: str,
        logprobs: dict[str, Any] | None,
    ) -> bytes:
        reason = generation.finish_reason
        if reason is None and logprobs is None and not self._each_usage:
            return b"%s%s%s" % (affixes[0], _encode(delta), affixes[1])
        choice = {
            "index": index,
            "text": delta,
            "logprobs": logprobs,
            "finish_reason": reason["type"] if reason else None,
            "matched_stop": reason.get("matched") if reason else None,
        }
        now = self._usage_now(generation, cached=False) if self._each_usage else None
        return b"data: %s\n\n" % _encode(self._head(generation.rid) | {"choices": [choice], "usage": now})

    def _usage_now(self, generation: Generation, *, cached: bool) -> dict[str, Any]:
        return usage(len(generation.prompt), generation.produced, generation.cached_tokens if cached else 0)
