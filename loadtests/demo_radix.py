"""What RadixAttention saves, shown on one long document: the first question computes it, later ones find it cached, if
they come to the worker that has it.

The rounds, how they are asked and what they say. Called by demo_radix_command.py. Not here: printing, the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

import aiohttp
import httpx

from loadtests.endpoint import TargetError, served_model, worker_ids
from loadtests.fleet import FleetPlan, LocalFleet
from loadtests.load_request import LoadRequest
from loadtests.stream_client import ChatClient, client_session
from loadtests.workloads.base import rng_of
from loadtests.workloads.prose import prose, question, title

_CACHED_SHARE = 0.5
"""A prompt counts as found in the cache from this share on. A document is all or nothing, so any middle will do."""
_COMPLETION_TOKENS = 8
"""Enough to see that it answers; the first one is what is measured."""
_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long the document is, in tokens of four bytes, and how many questions are asked on it in each round.

    `policy` is that of the router in the last round. With `endpoint`, all that is known is what answers there.
    """

    document_tokens: int = 8000
    questions: int = 8
    policy: str = "expected_ttft"
    model: str | None = None
    api_key: str | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question as it went. `speed_up` is against the first of its round; tokens are as the server reported them."""

    number: int
    worker: str | None
    ttft_s: float
    prompt_tokens: int
    cached_tokens: int
    speed_up: float

    @property
    def computed_tokens(self) -> int:
        return self.prompt_tokens - self.cached_tokens

    @property
    def was_cached(self) -> bool:
        return self.cached_tokens > _CACHED_SHARE * self.prompt_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The same document asked about several times, by one way of choosing the worker."""

    name: str
    asked: tuple[Asked, ...]

    @property
    def ttft_s(self) -> float:
        """All times to first token together: what a reader waits who asks one question after the other."""
        return sum(each.ttft_s for each in self.asked)

    @property
    def computed_tokens(self) -> int:
        return sum(each.computed_tokens for each in self.asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """What round robin takes more than the router: waiting, and tokens computed once more. `measured` is False where
    round robin was not run, but worked out from the first question's cost and the number of workers.
    """

    ttft_s: float
    computed_tokens: int
    measured: bool


class Watcher(Protocol):
    """Hears of everything as it happens."""

    def begin(self, name: str, about: str) -> None: ...
    def asked(self, asked: Asked) -> None: ...


async def show_fleet(plan: Plan, fleet_plan: FleetPlan, watcher: Watcher) -> list[Round]:
    """Three rounds on a fleet: one worker alone, all behind round robin, all behind the router's policy. The caches of
    the workers are emptied. Raises TargetError or ChildExited.
    """
    async with LocalFleet.running(fleet_plan) as fleet:
        urls = fleet.worker_urls
        async with client_session(timeout_s=_TIMEOUT_S) as session:
            asking = _Asking(plan, session, watcher)
            for url in urls:
                await fleet.guard(asking.warm_up(url))
            await fleet.flush()
            one = await fleet.guard(asking.round(urls[0], "one worker", "every question goes to the same worker"))
            async with fleet.router("round_robin") as url:
                about = f"the router sends them to {len(urls)} workers in turn"
                in_turn = await fleet.guard(asking.round(url, "round_robin", about))
            async with fleet.router(plan.policy) as url:
                about = f"the router chooses among {len(urls)} workers"
                chosen = await fleet.guard(asking.round(url, plan.policy, about))
    return [one, in_turn, chosen]


async def show_endpoint(plan: Plan, url: str, watcher: Watcher) -> tuple[Round, int]:
    """One round through whatever answers at `url`, and how many workers are behind it (1 when it does not say).
    Nothing is emptied: the document is new. Raises TargetError.
    """
    async with httpx.AsyncClient(trust_env=False, headers=_key(plan)) as client:
        workers = len(await worker_ids(client, url)) or 1
    async with client_session(timeout_s=_TIMEOUT_S) as session:
        asking = _Asking(plan, session, watcher)
        await asking.warm_up(url)
        return await asking.round(url, "endpoint", f"{url}, {workers} worker{'s' * (workers > 1)}"), workers


def lost_by_round_robin(rounds: Sequence[Round], workers: int) -> Lost:
    """Against the last round. Measured where a round_robin round is among them; else worked out: it would have computed
    the document on each of `workers`, as long as there are questions.
    """
    chosen = rounds[-1]
    in_turn = next((each for each in rounds if each.name == "round_robin"), None)
    if in_turn is not None:
        return Lost(
            ttft_s=in_turn.ttft_s - chosen.ttft_s,
            computed_tokens=in_turn.computed_tokens - chosen.computed_tokens,
            measured=True,
        )
    first = chosen.asked[0]
    later = [each for each in chosen.asked[1:] if each.was_cached]
    misses = min(workers - 1, len(later))
    return Lost(
        ttft_s=sum(first.ttft_s - each.ttft_s for each in later[:misses]),
        computed_tokens=sum(each.cached_tokens for each in later[:misses]),
        measured=False,
    )


class _Asking:
    """Asks about one new document per round: another document than any before, whatever was cached in earlier runs."""

    def __init__(self, plan: Plan, session: aiohttp.ClientSession, watcher: Watcher) -> None:
        self._plan = plan
        self._session = session
        self._watcher = watcher
        self._model = plan.model
        self._nonce = Random().getrandbits(64)  # a later run must not find this one's documents

    async def warm_up(self, url: str) -> None:
        """One long prompt that does not count: kernels are compiled, connections opened."""
        await self._ask(url, self._request("warm-up", 0), 1, None)

    async def round(self, url: str, name: str, about: str) -> Round:
        """All questions of a round, one after the other. Raises TargetError when one is not answered."""
        self._watcher.begin(name, about)
        asked: list[Asked] = []
        for number in range(1, self._plan.questions + 1):
            first_s = asked[0].ttft_s if asked else None
            asked.append(await self._ask(url, self._request(name, number), number, first_s))
            self._watcher.asked(asked[-1])
        return Round(name=name, asked=tuple(asked))

    def _request(self, name: str, number: int) -> LoadRequest:
        about = rng_of(self._plan.seed, "document", name, self._nonce)
        document = f"# {self._nonce:x} {name}: {title(about)}\n\n{prose(about, self._plan.document_tokens)}"
        asks = question(rng_of(self._plan.seed, "question", number))
        return LoadRequest(
            session_id=f"{name} {number}",  # sessions of their own: only the document is shared
            turn=0,
            arrival_s=0.0,
            messages=({"role": "system", "content": document}, {"role": "user", "content": asks}),
            max_tokens=_COMPLETION_TOKENS,
        )

    async def _ask(self, url: str, request: LoadRequest, number: int, first_s: float | None) -> Asked:
        if self._model is None:
            async with httpx.AsyncClient(trust_env=False, headers=_key(self._plan)) as client:
                self._model = await served_model(client, url)
        client_of_url = ChatClient(self._session, url, headers=_key(self._plan))
        answer = await client_of_url.call(request.body(self._model), session_id=request.session_id)
        if answer.error is not None:
            raise TargetError(f"{url} did not answer question {number}: {answer.error_detail}")
        if answer.ttft_s is None or answer.usage is None:
            raise TargetError(f"{url} answered question {number} without {'text' if answer.usage else 'usage'}")
        return Asked(
            number=number,
            worker=answer.worker,
            ttft_s=answer.ttft_s,
            prompt_tokens=answer.usage.prompt_tokens,
            cached_tokens=answer.cached_tokens or 0,
            speed_up=1.0 if first_s is None else first_s / answer.ttft_s,
        )


def _key(plan: Plan) -> dict[str, str]:
    return {} if plan.api_key is None else {"authorization": f"Bearer {plan.api_key}"}
