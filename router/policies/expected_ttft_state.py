"""What expected_ttft keeps over a restart of the router, as records with bounds: prompts, speeds, sizes, shares.

Load under way is not kept: its requests ended with the router. Called by expected_ttft's `dump` and `load`. Not here:
the file and its age (state.keeper).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from router.policies.expected_ttft_learned import BUCKETS, MOST_MODELS, TokenScale, Wanted
from router.policies.expected_ttft_rate import BOUND
from router.policies.expected_ttft_worker import WorkerBook
from router.prefix.cache_image import Kept

OLDEST_S = 1e9
Log = Annotated[float, Meta(ge=-BOUND, le=BOUND)]
Ratio = Annotated[float, Meta(ge=-2.8, le=2.8)]
"""The logarithm of a factor of 16, TokenScale's limit, and a little more."""
Tokens = Annotated[float, Meta(ge=0.0, le=1e9)]
Seconds = Annotated[float, Meta(gt=0.0, le=1e6)]
Count = Annotated[int, Meta(ge=0)]
"""Numbers that are none, and infinite ones, are outside of any of these bounds."""


class SavedPrompt(msgspec.Struct, frozen=True, array_like=True):
    """One prompt of a cache; `age_s` is how long ago it was last used. See cache_image.Entry for the rest."""

    base: Count
    first: Count
    age_s: Annotated[float, Meta(ge=0.0, le=OLDEST_S)]
    unit_tokens: Annotated[float, Meta(gt=0.0, le=1e6)]
    tail_tokens: Tokens
    blocks: Sequence[int]


class SavedWorker(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's speed and cache."""

    rate: tuple[Log, Log, Log, Log]
    observations: Count
    answer_s: Seconds
    decode_step_s: Seconds
    capacity_tokens: Annotated[float, Meta(ge=1024.0, le=1e9)]
    factor: Annotated[float, Meta(ge=0.02, le=50.0)]
    capacity_reported: bool
    reports_cache: bool
    prompts: list[SavedPrompt]


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """The policy. `msgspec.convert` into it raises a ValueError for whatever breaks a bound."""

    version: Literal[2]
    answer_tokens: Annotated[float, Meta(ge=0.0, le=1e5)]
    scale: Annotated[list[tuple[str | None, Ratio]], Meta(max_length=MOST_MODELS)]
    again: Annotated[list[Tokens], Meta(min_length=BUCKETS, max_length=BUCKETS)]
    never: Annotated[list[Tokens], Meta(min_length=BUCKETS, max_length=BUCKETS)]
    workers: dict[str, SavedWorker]


def saved_worker(book: WorkerBook, now_s: float) -> SavedWorker:
    """What `take_up` takes."""
    cache = book.cache
    return SavedWorker(
        rate=book.rate.logs,
        observations=book.rate.observations,
        answer_s=book.answer_s,
        decode_step_s=book.decode_step_s,
        capacity_tokens=cache.base_capacity_tokens,
        factor=cache.factor,
        capacity_reported=cache.capacity_is_reported,
        reports_cache=cache.reports_cache,
        prompts=[
            SavedPrompt(
                one.base,
                one.first,
                max(0.0, min(now_s - one.used_s, OLDEST_S)),
                one.unit_tokens,
                one.tail_tokens,
                one.blocks,
            )
            for one in cache.image.kept()
        ],
    )


def take_up(book: WorkerBook, saved: SavedWorker, now_s: float) -> None:
    """Into a book that is new. Raises ValueError where prompts contradict each other."""
    book.rate.set(saved.rate, saved.observations)
    book.answer_s = saved.answer_s
    book.decode_step_s = saved.decode_step_s
    cache = book.cache
    cache.reports_cache = saved.reports_cache
    cache.set_capacity(saved.capacity_tokens, saved.factor, reported=saved.capacity_reported)
    cache.image.restore(
        [
            Kept(one.base, one.first, now_s - one.age_s, one.unit_tokens, one.tail_tokens, one.blocks)
            for one in saved.prompts
        ]
    )


def take_up_shares(scale: TokenScale, wanted: Wanted, saved: Saved) -> None:
    """What is learned of the fleet as a whole."""
    scale.restore(saved.scale)
    wanted.restore(saved.again, saved.never)


def saved_policy(
    books: Sequence[tuple[str, WorkerBook]], scale: TokenScale, wanted: Wanted, answer_tokens: float, now_s: float
) -> Saved:
    """All of it."""
    return Saved(
        version=2,
        answer_tokens=answer_tokens,
        scale=scale.logs(),
        again=wanted.again,
        never=wanted.never,
        workers={worker: saved_worker(book, now_s) for worker, book in books},
    )
