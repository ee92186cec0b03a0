"""What replay runs: requests as a policy sees them (a prompt key) and as the engine sees them (named pages).

`traffic_of` turns a trace or a workload into ReplayTraffic; decision_log_trace.py does it for decision logs. Not here:
which of them a name means (replay_load.py), reading files (traces.py), virtual time (replay.py).

A Mooncake block of 512 tokens is eight engine pages of 64 tokens, so that an answer wastes little of its last page;
pages are the units of the prompt key, and what is less than a block of it has no hash. Prompts share exactly what the
trace says; answers are stored by the engine under names of their own, because a trace without text cannot say which
later prompt repeats them. Text is rendered and cut into tokens as the simulated worker does it, one token a page, as
SGLang's default is.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.load_request import LoadRequest
from loadtests.traces import BLOCK_TOKENS, BlockRequest, Trace
from router.prefix.block_hash import chain, namespace_seed
from router.types import PromptKey
from workers.simulated.chat_template import render_chat
from workers.simulated.tokenizer import Tokenizer

PAGE_TOKENS = 64
"""Tokens of an engine page in traces without text; divides BLOCK_TOKENS."""
TEXT_KEY_TOKENS = 64
"""Tokens of one unit of a text's key: the router's default of 256 bytes at four bytes a token."""
_SEED = namespace_seed(b"replay")
_PAGES_PER_BLOCK = BLOCK_TOKENS // PAGE_TOKENS


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRequest:
    """One request. `pages` names every whole engine page of prompt and answer. `max_output_tokens` is what the client
    told the router, None where it told nothing; `output_tokens` is how long the answer will be, which nobody knows.
    `wait_for_turn`: it starts no earlier than `gap_s` after the end of its session's previous request.
    """

    arrival_s: float
    key: PromptKey
    prompt_tokens: int
    output_tokens: int
    pages: array[int]
    session_id: str | None = None
    turn: int = 0
    gap_s: float = 0.0
    wait_for_turn: bool = False
    max_output_tokens: int | None = None
    workload: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayTraffic:
    """Requests in order of arrival, and the size of the pages that they name."""

    name: str
    requests: Sequence[ReplayRequest]
    page_tokens: int


def traffic_of(trace: Trace, name: str = "trace", *, wait_for_turns: bool | None = None) -> ReplayTraffic:
    """A trace, or what a workload generated, ready for replay. O(tokens); do it once for many cells.

    `wait_for_turns` None: calls with text keep the order of their session, as the live driver does; traces without text
    keep their timestamps, whatever happened to the turn before.
    """
    if isinstance(trace[0], BlockRequest):
        naming = _BlockNames()
        requests = [naming.request(one, wait=bool(wait_for_turns)) for one in trace if isinstance(one, BlockRequest)]
    else:
        tokenizer = Tokenizer()
        wait = wait_for_turns is not False
        requests = [_text_request(one, tokenizer, wait=wait) for one in trace if isinstance(one, LoadRequest)]
    requests.sort(key=lambda one: one.arrival_s)
    page_tokens = PAGE_TOKENS if isinstance(trace[0], BlockRequest) else 1
    return ReplayTraffic(name=name, requests=requests, page_tokens=page_tokens)


class _BlockNames:
    """Gives every block of one trace a number, and its pages the eight numbers that follow from it."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._next = 0

    def request(self, request: BlockRequest, *, wait: bool) -> ReplayRequest:
        blocks = -(-request.prompt_tokens // BLOCK_TOKENS)
        numbers = [self._number(block) for block in request.blocks] or [self._fresh() for _ in range(blocks)]
        pages = self._pages(numbers, request)
        whole = pages[: request.prompt_tokens // PAGE_TOKENS]
        return ReplayRequest(
            arrival_s=request.arrival_s,
            key=PromptKey(
                blocks=chain(whole.tobytes(), whole.itemsize, _SEED),
                unit_tokens=float(PAGE_TOKENS),
                prompt_tokens=float(request.prompt_tokens),
            ),
            prompt_tokens=request.prompt_tokens,
            output_tokens=request.output_tokens,
            pages=pages,
            session_id=request.session_id,
            turn=request.turn,
            gap_s=request.gap_s,
            wait_for_turn=wait and request.session_id is not None,
            workload=request.workload,
        )

    def _pages(self, numbers: Sequence[int], request: BlockRequest) -> array[int]:
        """
        prompt of 1,100 tokens: | block 0: 8 pages | block 1: 8 pages | partial block 2: 1 page | page of its own ...
        """
        pages = array("I")
        for number in numbers:
            pages.extend(range(number * _PAGES_PER_BLOCK, (number + 1) * _PAGES_PER_BLOCK))
        del pages[request.prompt_tokens // PAGE_TOKENS :]
        wanted = (request.prompt_tokens + request.output_tokens) // PAGE_TOKENS
        while len(pages) < wanted:
            first = self._fresh() * _PAGES_PER_BLOCK
            pages.extend(range(first, min(first + _PAGES_PER_BLOCK, first + wanted - len(pages))))
        return pages

    def _number(self, block: int) -> int:
        number = self._numbers.get(block)
        if number is None:
            number = self._numbers[block] = self._fresh()
        return number

    def _fresh(self) -> int:
        self._next += 1
        return self._next


def _text_request(request: LoadRequest, tokenizer: Tokenizer, *, wait: bool) -> ReplayRequest:
    """Answers are tokens that no text contains, so they are never found again: the next turn repeats the answer that
    the trace recorded, not the one that the engine made.
    """
    prompt = array("I", render_chat(tokenizer, request.messages, request.tools))
    pages = prompt + array("I", [0xFFFFFFFF - position for position in range(request.max_tokens)])
    return ReplayRequest(
        arrival_s=request.arrival_s,
        key=PromptKey(
            blocks=chain(prompt.tobytes(), TEXT_KEY_TOKENS * prompt.itemsize, _SEED),
            unit_tokens=float(TEXT_KEY_TOKENS),
            prompt_tokens=float(len(prompt)),
        ),
        prompt_tokens=len(prompt),
        output_tokens=request.max_tokens,
        pages=pages,
        session_id=request.session_id,
        turn=request.turn,
        gap_s=request.gap_s,
        wait_for_turn=wait,
        max_output_tokens=request.max_tokens,
        workload=request.workload,
    )
