"""Exact mode: what workers' KV caches hold of this prompt, by their own events and the prompt's own tokens.

Tokenising and hashing run in threads and under a deadline; whenever tokens or events are missing, late or wrong the
answer is None and the policy's approximate index decides. Called by request.dispatch before the policy.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from router.errors import ConfigError
from router.fleet.kv_events import KvEvents
from router.fleet.registry import Registry
from router.knob import knob, require
from router.prefix.page_hash import Mark, PageChains
from router.request.parsed_request import ParsedRequest
from router.request.prompt_tokens import PromptTokenizer, check_tokenizer, load_tokenizer, needs_tokenizer, tokens_of
from router.types import WorkerId

log = logging.getLogger(__name__)

QUEUE_PER_THREAD = 8
"""Prompts that wait for a thread; more would be late anyway."""
WRONG_IN_A_ROW = 16
"""So many prompts of one kind whose token count is not the worker's: its template is not rendered as it does."""
Counted = tuple[int, dict[int, list[Mark]]]
"""A prompt's size in tokens, and its marks by page size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactConfig:
    enabled: bool = knob(False, "know prefix matches from workers' KV events instead of estimating them")
    tokenizer: str | None = knob(
        None, "folder with the model's tokenizer.json; unset: where the workers say, if this machine has it"
    )
    timeout_s: float = knob(0.02, "seconds to wait for a prompt's tokens before estimating instead")
    threads: int = knob(2, "threads that tokenise prompts")

    def __post_init__(self) -> None:
        require(self.timeout_s > 0, "timeout_s must be positive")
        require(1 <= self.threads <= 64, "threads must be between 1 and 64")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactMatch:
    """A prompt's size and its match on each worker that can be trusted, both in tokens; `kind` is for `reported`."""

    kind: str
    prompt_tokens: int
    match_tokens: Mapping[WorkerId, int]


class ExactMatcher:
    """Answers for every request; `close` ends its threads. `results` counts how often it could and why it could not."""

    def __init__(self, config: ExactConfig, events: KvEvents, registry: Registry) -> None:
        self._config = config
        self._events = events
        self._registry = registry
        self._pool = ThreadPoolExecutor(config.threads, thread_name_prefix="tokens")
        self._waiting = 0
        self._chains = PageChains(pause=lambda: time.sleep(0))  # hashing holds the GIL: the event loop goes first
        self._tokenizers: dict[str, PromptTokenizer | None] = {}
        self._wrong: dict[str, int] = {}
        self.results = dict.fromkeys(("known", "late", "no_tokens", "no_events"), 0)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def check(self) -> None:
        """Raises ConfigError when the configured tokenizer cannot be there; cheap."""
        if self._config.tokenizer is not None:
            check_tokenizer(Path(self._config.tokenizer))

    async def load(self) -> None:
        """Load the configured tokenizer now rather than at the first request. Raises ConfigError."""
        if self._config.tokenizer is not None:
            loop = asyncio.get_running_loop()
            self._tokenizers[""] = await loop.run_in_executor(
                self._pool, load_tokenizer, Path(self._config.tokenizer)
            )

    async def match(self, parsed: ParsedRequest) -> ExactMatch | None:
        """What each worker holds of this prompt; None where it cannot be known in time."""
        pages = self._events.page_sizes()
        if not pages:
            self._count("no_events")
            return None
        kind = kind_of(parsed)
        if self._wrong.get(kind, 0) >= WRONG_IN_A_ROW:
            self._count("no_tokens")
            return None
        if self._waiting >= self._config.threads * QUEUE_PER_THREAD:
            self._count("late")
            return None
        tokenizer = self._tokenizer(parsed) if needs_tokenizer(parsed) else None
        found = await self._in_time(parsed, tokenizer, pages)
        if found is None:
            return None
        count, marks = found
        self.results["known"] += 1
        matches = self._events.match(marks)
        limit = max(count - 1, 0)  # the last token is always computed: its logits are needed
        return ExactMatch(
            kind=kind, prompt_tokens=count, match_tokens={name: min(tokens, limit) for name, tokens in matches.items()}
        )

    def reported(self, match: ExactMatch, prompt_tokens: int | None) -> None:
        """What the worker says the prompt's size was. Kinds of prompts that are always wrong are given up."""
        if prompt_tokens is None:
            return
        if prompt_tokens == match.prompt_tokens:
            self._wrong[match.kind] = 0
            return
        wrong = self._wrong[match.kind] = self._wrong.get(match.kind, 0) + 1
        if wrong == WRONG_IN_A_ROW:
            log.warning(
                "%s: %d prompts were %d tokens where we counted %d, or alike: their matches are estimated from now on",
                match.kind, wrong, prompt_tokens, match.prompt_tokens,
            )  # fmt: skip

    async def _in_time(
        self, parsed: ParsedRequest, tokenizer: PromptTokenizer | None, pages: Collection[int]
    ) -> Counted | None:
        self._waiting += 1
        try:
            work = asyncio.get_running_loop().run_in_executor(self._pool, self._work, parsed, tokenizer, pages)
            work.add_done_callback(self._worked)
            async with asyncio.timeout(self._config.timeout_s):
                found = await asyncio.shield(work)
        except TimeoutError:
            self._count("late")
            return None
        if found is None:
            self._count("no_tokens")
        return found

    def _worked(self, work: asyncio.Future[Counted | None]) -> None:
        self._waiting -= 1

    def _work(
        self, parsed: ParsedRequest, tokenizer: PromptTokenizer | None, pages: Collection[int]
    ) -> Counted | None:
        """In a thread: the prompt's size and its marks for each page size. Never raises."""
        salt = parsed.body.get("cache_salt")
        if not (salt is None or isinstance(salt, str)):
            return None
        try:
            tokens = tokens_of(parsed, tokenizer)
            if tokens is None:
                return None
            return len(tokens), {page: self._chains.marks(tokens, page, salt) for page in pages}
        except OverflowError:  # ids that are none; the worker will refuse them
            return None
        except Exception:  # top of a thread's work: the request goes on with an estimate
            log.exception("counting the tokens of a prompt failed")
            return None

    def _tokenizer(self, parsed: ParsedRequest) -> PromptTokenizer | None:
        """The configured one, or that of the workers of this model; None while it is loading or where there is none."""
        if self._config.tokenizer is not None:
            return self._tokenizers.get("")
        for worker in self._registry.all():
            path = worker.facts.tokenizer_path if worker.facts and worker.serves(parsed.model) else None
            if path is not None:
                if path not in self._tokenizers:
                    self._tokenizers[path] = None
                    self._pool.submit(self._load, path)
                return self._tokenizers[path]
        return None

    def _load(self, path: str) -> None:
        if not (Path(path) / "tokenizer.json").is_file():
            log.warning("no tokenizer.json in %s here: prompts given as text are estimated (exact.tokenizer)", path)
            return
        try:
            self._tokenizers[path] = load_tokenizer(Path(path))
        except ConfigError as error:
            log.warning("%s", error.message)

    def _count(self, result: str) -> None:
        self.results[result] += 1


def kind_of(parsed: ParsedRequest) -> str:
    """Requests that are rendered alike: by endpoint, and whether they have tools."""
    return f"{parsed.endpoint} with tools" if parsed.body.get("tools") else parsed.endpoint
