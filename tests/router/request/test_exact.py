"""Exact lookups: right when tokens and events are there, and None whenever something is missing, late or wrong."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from router.errors import ConfigError
from router.fleet.kv_events import KvEvents, KvEventsConfig
from router.fleet.registry import Registry
from router.fleet.server_info import ServerFacts
from router.prefix.page_hash import Mark
from router.request import exact
from router.request.exact import WRONG_IN_A_ROW, ExactConfig, ExactMatch, ExactMatcher
from router.request.parse import parse
from router.request.parsed_request import ParsedRequest
from router.types import WorkerId

A, B = WorkerId("a"), WorkerId("b")


class Events(KvEvents):
    """Two workers that hold what `held` says, whatever is asked."""

    def __init__(self, registry: Registry, held: Mapping[WorkerId, int]) -> None:
        super().__init__(KvEventsConfig(), registry)
        self.held = held

    def page_sizes(self) -> frozenset[int]:
        return frozenset({16}) if self.held else frozenset()

    def match(self, marks: Mapping[int, Sequence[Mark]]) -> dict[WorkerId, int]:
        assert set(marks) == {16}
        return dict(self.held)


@asynccontextmanager
async def matcher(held: Mapping[WorkerId, int], **config: Any) -> AsyncIterator[ExactMatcher]:
    registry = Registry(lambda: 0.0)
    made = ExactMatcher(ExactConfig(enabled=True, **{"timeout_s": 20.0, **config}), Events(registry, held), registry)
    try:
        yield made
    finally:
        made.close()


def call(path: str = "/generate", **body: Any) -> ParsedRequest:
    return parse(path, json.dumps(body or {"input_ids": list(range(100))}).encode())


async def test_what_workers_hold_is_told_and_the_last_token_never_counts() -> None:
    async with matcher({A: 64, B: 100}) as known:
        found = await known.match(call())

        assert found == ExactMatch(kind="/generate", prompt_tokens=100, match_tokens={A: 64, B: 99})
        assert known.results == {"known": 1, "late": 0, "no_tokens": 0, "no_events": 0}


async def test_without_events_or_tokens_nothing_is_known() -> None:
    async with matcher({}) as known:
        assert await known.match(call()) is None
        assert known.results["no_events"] == 1
    async with matcher({A: 1}) as known:
        for odd in (call(text="no tokenizer"), call(input_ids=[2**40]), call(input_ids=[1], cache_salt=7)):
            assert await known.match(odd) is None
        assert known.results["no_tokens"] == 3


async def test_tokens_that_come_too_late_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def slow(parsed: ParsedRequest, tokenizer: object) -> list[int]:
        go_on.wait(20)
        return [1]

    monkeypatch.setattr(exact, "tokens_of", slow)
    async with matcher({A: 1}, timeout_s=0.01, threads=1) as known:
        first = [await known.match(call()) for _ in range(exact.QUEUE_PER_THREAD + 2)]
        go_on.set()
        async with asyncio.timeout(20):
            while known._waiting:
                await asyncio.sleep(0.01)

        assert first == [None] * (exact.QUEUE_PER_THREAD + 2)
        assert known.results["late"] == exact.QUEUE_PER_THREAD + 2


async def test_a_bug_in_counting_costs_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(parsed: ParsedRequest, tokenizer: object) -> list[int]:
        raise RuntimeError("bug")

    monkeypatch.setattr(exact, "tokens_of", broken)
    async with matcher({A: 1}) as known:
        assert await known.match(call()) is None


async def test_a_kind_of_prompt_that_is_always_counted_wrong_is_given_up() -> None:
    async with matcher({A: 64}) as known:
        for _ in range(WRONG_IN_A_ROW - 1):
            found = await known.match(call())
            assert found is not None
            known.reported(found, 101)
        known.reported(found, None)
        known.reported(found, 100)
        for _ in range(WRONG_IN_A_ROW):
            found = await known.match(call())
            assert found is not None
            known.reported(found, 101)

        assert await known.match(call()) is None
        assert await known.match(call("/v1/completions", prompt=[1, 2])) is not None


async def until_known(known: ExactMatcher, asked: ParsedRequest) -> ExactMatch:
    async with asyncio.timeout(20):
        while (found := await known.match(asked)) is None:
            await asyncio.sleep(0.01)
    return found


async def test_the_workers_own_tokenizer_is_loaded_where_this_machine_has_it(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="needs the extra 'exact'")
    model = tokenizers.models.WordLevel({"hello": 0, "?": 1}, unk_token="?")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.save(str(tmp_path / "tokenizer.json"))
    async with matcher({A: 1}) as known:
        worker = known._registry.add("http://a", "a")
        known._registry.set_facts(worker, ServerFacts(identity="1", tokenizer_path=str(tmp_path)))
        found = await until_known(known, call(text="hello hello world"))

    assert found.prompt_tokens == 3


@pytest.mark.parametrize("damaged", [False, True])
async def test_a_tokenizer_that_is_elsewhere_or_damaged_leaves_text_estimated(
    tmp_path: Path, damaged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if damaged:
        (tmp_path / "tokenizer.json").write_text("{")
    async with matcher({A: 1}) as known:
        worker = known._registry.add("http://a", "a")
        known._registry.set_facts(worker, ServerFacts(identity="1", tokenizer_path=str(tmp_path)))
        assert await known.match(call(text="hello")) is None
        async with asyncio.timeout(20):
            while not caplog.records:
                await asyncio.sleep(0.01)
        assert await known.match(call(text="hello")) is None
        assert await known.match(call()) is not None


async def test_a_configured_tokenizer_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    async with matcher({}, tokenizer=str(tmp_path)) as known:
        with pytest.raises(ConfigError):
            known.check()
        with pytest.raises(ConfigError):
            await known.load()


async def test_without_a_configured_tokenizer_there_is_nothing_to_check_or_load() -> None:
    async with matcher({A: 1}) as known:
        known.check()
        await known.load()
        known._registry.add("http://a", "a")  # nothing is known of it yet

        assert await known.match(call(text="hello")) is None


async def test_a_configured_tokenizer_is_that_of_every_worker(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="needs the extra 'exact'")
    tokenizers.Tokenizer(tokenizers.models.WordLevel({"hello": 0}, unk_token="hello")).save(
        str(tmp_path / "tokenizer.json")
    )
    async with matcher({A: 1}, tokenizer=str(tmp_path)) as known:
        known.check()
        await known.load()
        found = await known.match(call(text="hello"))

    assert found is not None
    assert found.prompt_tokens == 1
