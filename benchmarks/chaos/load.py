"""A steady mixed load: every request is accounted for once, every byte compared with what it should be.

Simulated workers of one seed say the same to the same prompt, so the right answers are asked of one of them before.
What a router that is being restarted refuses, the client sends again, as any client of a service must.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp

ENDS_S = 60.0
"""A request that has not ended by then hangs: that is a failure of the router."""
AGAIN_S = 0.1
"""How long a client waits before it sends again what a stopping router refused."""
LEAVES = 0.04
"""Share of streaming requests whose client hangs up in the middle."""


@dataclass
class Account:
    """What became of every request. `violations` is empty when all is as promised. `sent_again` counts what clients
    repeated while the router was restarted, by how it had been refused; `took_s` are the times of whole answers."""

    ends: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    sent_again: Counter[str] = field(default_factory=Counter)
    took_s: list[float] = field(default_factory=list)

    def ended(self, how: str, violation: str | None = None) -> None:
        self.ends[how] += 1
        if violation is not None:
            self.violations.append(violation)

    @property
    def total(self) -> int:
        return sum(self.ends.values())


def bodies(seed: int, count: int) -> list[dict[str, Any]]:
    """Different prompts: conversations with a common start, short and long."""
    rng = Random(seed)
    system = "You are a careful assistant. " * 20
    made = []
    for i in range(count):
        text = f"Question {i}: " + "tell me more about tries. " * rng.choice((1, 5, 60, 200))
        messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
        limit = rng.choice((4, 16, 64))
        made.append({"model": "simulated", "messages": messages, "max_tokens": limit, "temperature": 0})
    return made


async def text_of(answer: aiohttp.ClientResponse) -> str:
    found: str = (await answer.json())["choices"][0]["message"]["content"]
    return found


async def right_answers(session: aiohttp.ClientSession, worker_url: str, asked: list[dict[str, Any]]) -> list[str]:
    """What a worker says to each of them."""
    found = []
    for body in asked:
        async with session.post(worker_url + "/v1/chat/completions", json=body) as answer:
            found.append(await text_of(answer))
    return found


class Refused(Exception):
    """The router was being restarted and took nothing of the request; the message says how it showed."""


class Load:
    """Sends one of `asked` every 1/rate seconds until told to stop.

    `away(began_s)` says whether the router has been restarted since a request began, by the monotonic clock.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        asked: list[dict[str, Any]],
        right: list[str],
        seed: int,
        away: Callable[[float], bool] = lambda began_s: False,
    ) -> None:
        self._session = session
        self._url = url + "/v1/chat/completions"
        self._asked = asked
        self._right = right
        self._rng = Random(seed)
        self._away = away
        self.account = Account()
        self.sent = 0
        self.leaves = LEAVES
        self._stopped = False

    def stop(self) -> None:
        """Send nothing more; what runs ends."""
        self._stopped = True

    async def run(self, rate_per_s: float, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end_s = loop.time() + seconds
        async with asyncio.TaskGroup() as tasks:
            while loop.time() < end_s and not self._stopped:
                index, stream = self._rng.randrange(len(self._asked)), self._rng.random() < 0.7
                leaves = stream and self._rng.random() < self.leaves
                self.sent += 1
                tasks.create_task(self._one(index, stream=stream, leaves=leaves))
                await asyncio.sleep(self._rng.expovariate(rate_per_s))

    async def nudge(self) -> None:
        """One more request."""
        self.sent += 1
        await self._one(0, stream=False, leaves=False)

    async def _one(self, index: int, *, stream: bool, leaves: bool) -> None:
        """One request, sent again for as long as a stopping router refuses it, to its one end."""
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(ENDS_S):
                while True:
                    try:
                        await self._try(index, stream=stream, leaves=leaves)
                        break
                    except Refused as how:
                        self.account.sent_again[str(how)] += 1
                        await asyncio.sleep(AGAIN_S)
        except TimeoutError:
            self.account.ended("hung", f"request {index} did not end within {ENDS_S:g} s")
        self.account.took_s.append(time.monotonic() - began_s)

    async def _try(self, index: int, *, stream: bool, leaves: bool) -> None:
        """Raises Refused."""
        body, right, began_s, answered = self._asked[index], self._right[index], time.monotonic(), False
        try:
            async with self._session.post(self._url, json={**body, "stream": stream}) as answer:
                answered = True
                if answer.status != 200:
                    code = await _code(answer)
                    if code == "router_stopping" and self._away(began_s):
                        raise Refused("503 router_stopping")
                    how = f"failed {answer.status} {code}"
                    self.account.ended(how, f"no byte, yet {how}")
                elif stream:
                    await self._stream(answer, right, leaves=leaves)
                else:
                    self._compare(await text_of(answer), right, "answered")
        except aiohttp.ClientError as error:
            name = type(error).__name__
            if not answered and self._away(began_s):
                raise Refused(name) from error
            if not stream and isinstance(error, aiohttp.ClientPayloadError):
                self.account.ended("cut off after its first byte")
            else:
                self.account.ended(f"connection: {name}", f"the router broke a connection: {name}: {error}")

    def _compare(self, text: str, right: str, how: str) -> None:
        self.account.ended(how, None if text == right else f"wrong bytes: {text[:80]!r} instead of {right[:80]!r}")

    async def _stream(self, answer: aiohttp.ClientResponse, right: str, *, leaves: bool) -> None:
        text, done, error, events = "", False, None, 0
        async for line in answer.content:
            if not line.startswith(b"data: "):
                continue
            data = line[6:].strip()
            if data == b"[DONE]":
                done = True
                continue
            event = json.loads(data)
            events += 1
            if "error" in event:
                error = event["error"]["code"]
            for choice in event.get("choices", ()):
                text += choice["delta"].get("content") or ""
            if leaves and events >= 2:
                answer.close()
                self.account.ended("client left")
                return
        if error is not None and not done:
            fine = right.startswith(text)
            self.account.ended(f"told in the stream: {error}", None if fine else "wrong bytes before an error event")
        elif done:
            self._compare(text, right, "answered")
        else:
            self.account.ended("silent end", "a stream ended without its end and without an error")


async def _code(answer: aiohttp.ClientResponse) -> str:
    try:
        found = await answer.json(content_type=None)
        return str(found["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return "?"
