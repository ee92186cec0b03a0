"""A stand-in for the engine until the faithful one is in place: FCFS, chunked prefill, an LRU of prefix blocks.

Same calls as engine.Engine; approximate by design. To be deleted with the first engine that passes its tests.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

_BLOCK = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    kv_capacity_tokens: int
    page_size: int
    max_running_requests: int
    chunked_prefill_tokens: int
    schedule_policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    rid: str
    prompt: Sequence[int]
    output: Sequence[int]
    namespace: Hashable


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOutput:
    rid: str
    new_tokens: int
    cached_tokens: int
    finished: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    duration_s: float
    outputs: Sequence[TokenOutput]


@dataclass(slots=True)
class _Running:
    request: EngineRequest
    cached: int
    to_read: int
    produced: int = 0


class Engine:
    def __init__(self, config: EngineConfig, cost_model: object) -> None:
        del cost_model
        self._config = config
        self._waiting: OrderedDict[str, EngineRequest] = OrderedDict()
        self._running: dict[str, _Running] = {}
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def submit(self, request: EngineRequest, now_s: float) -> None:
        del now_s
        self._waiting[request.rid] = request

    def abort(self, rid: str) -> None:
        self._waiting.pop(rid, None)
        self._running.pop(rid, None)

    def flush_cache(self) -> None:
        self._blocks.clear()

    def load(self) -> dict[str, float]:
        used = sum(len(run.request.prompt) + run.produced for run in self._running.values())
        return {
            "running": len(self._running),
            "waiting": len(self._waiting),
            "waiting_uncached_tokens": sum(len(request.prompt) for request in self._waiting.values()),
            "used_tokens": used,
        }

    def step(self, now_s: float) -> StepResult:
        del now_s
        while self._waiting and len(self._running) < self._config.max_running_requests:
            rid, request = self._waiting.popitem(last=False)
            cached = min(self._match(request), max(0, len(request.prompt) - 1))
            self._running[rid] = _Running(request=request, cached=cached, to_read=len(request.prompt) - cached)
        budget = self._config.chunked_prefill_tokens
        outputs: list[TokenOutput] = []
        read = 0
        for rid, run in list(self._running.items()):
            if run.to_read > 0:
                chunk = min(run.to_read, budget)
                budget -= chunk
                read += chunk
                run.to_read -= chunk
                if run.to_read > 0:
                    continue
                self._insert(run.request)
            new = 1 if run.produced < len(run.request.output) else 0
            run.produced += new
            finished = run.produced >= len(run.request.output)
            outputs.append(TokenOutput(rid=rid, new_tokens=new, cached_tokens=run.cached, finished=finished))
            if finished:
                del self._running[rid]
                self._insert(run.request, whole=True)
        return StepResult(duration_s=0.005 + 0.00003 * len(self._running) + read * 3.0e-5, outputs=outputs)

    def _keys(self, namespace: Hashable, tokens: Sequence[int]) -> list[int]:
        keys: list[int] = []
        key = hash(namespace)
        for start in range(0, len(tokens) - _BLOCK + 1, _BLOCK):
            key = hash((key, tuple(tokens[start : start + _BLOCK])))
            keys.append(key)
        return keys

    def _match(self, request: EngineRequest) -> int:
        matched = 0
        for key in self._keys(request.namespace, request.prompt):
            if key not in self._blocks:
                break
            self._blocks.move_to_end(key)
            matched += _BLOCK
        return matched

    def _insert(self, request: EngineRequest, *, whole: bool = False) -> None:
        tokens = [*request.prompt, *request.output[:-1]] if whole else request.prompt
        for key in self._keys(request.namespace, tokens):
            self._blocks[key] = None
            self._blocks.move_to_end(key)
        while len(self._blocks) * _BLOCK > self._config.kv_capacity_tokens:
            self._blocks.popitem(last=False)
