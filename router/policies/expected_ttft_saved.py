"""What expected_ttft keeps over a restart of the router, as plain data: images of caches, learned rates and figures.

Ages stand for times, as the clock starts anew. Requests in flight are not kept. Called by expected_ttft only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from router.policies.expected_ttft_learned import TokenScale, Wanted
from router.policies.expected_ttft_worker import WorkerBook
from router.types import WorkerId

LONGEST_ANSWER_S = 3600.0
MOST_OBSERVATIONS = 10**9


def dump(
    books: Mapping[WorkerId, WorkerBook], scale: TokenScale, wanted: Wanted, answer_tokens: float, now_s: float
) -> dict[str, Any]:
    """Of msgpack's types."""
    return {
        "workers": {worker: _dump_book(book, now_s) for worker, book in books.items()},
        "scale": scale.dump(),
        "wanted": wanted.dump(),
        "answer_tokens": answer_tokens,
    }


def load(
    state: Mapping[str, Any],
    workers: Collection[WorkerId],
    new_book: Callable[[WorkerId], WorkerBook],
    scale: TokenScale,
    wanted: Wanted,
    now_s: float,
) -> tuple[dict[WorkerId, WorkerBook], float]:
    """The books of those of `workers` that were saved, and the mean answer; `scale` and `wanted`, which are new, take
    up theirs. Raises ValueError for what `dump` did not make.
    """
    try:
        scale.load(state["scale"])
        wanted.load(state["wanted"])
        books = {}
        for worker in workers:
            if worker in state["workers"]:
                books[worker] = new_book(worker)
                _load_book(books[worker], state["workers"][worker], now_s)
        return books, _number(state["answer_tokens"], 0.0, 1e6)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError("not what expected_ttft saves") from error


def _dump_book(book: WorkerBook, now_s: float) -> dict[str, Any]:
    return {
        "prompts": book.cache.image.dump(now_s),
        "size": book.cache.dump_size(),
        "rate": [*book.rate.logs, book.rate.observations],
        "answer_s": book.answer_s,
    }


def _load_book(book: WorkerBook, saved: Mapping[str, Any], now_s: float) -> None:
    step, token, pair, context, observations = saved["rate"]
    one, two, three, four = (_number(each, -20.0, 20.0) for each in (step, token, pair, context))
    book.rate.set((one, two, three, four))
    book.rate.observations = int(_number(observations, 0, MOST_OBSERVATIONS))
    book.answer_s = _number(saved["answer_s"], 0.0, LONGEST_ANSWER_S)
    book.cache.load_size(saved["size"])
    book.cache.image.load(saved["prompts"], now_s)


def _number(value: Any, low: float, high: float) -> float:
    """Raises ValueError for what is none, or outside."""
    if type(value) not in (int, float) or not low <= value <= high:
        raise ValueError(f"{value!r} is no number from {low:g} to {high:g}")
    return float(value)
