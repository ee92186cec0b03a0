"""The decision log: what is written can be read back, prompts stay hashed, files rotate, nothing blocks."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import zstandard

from loadtests.decision_log_trace import read_decision_log
from outcomes import decision, key, outcome
from router.errors import ConfigError
from router.telemetry.decision_log import DecisionLog, DecisionLogConfig
from router_fakes import answer, config, running, upstream


class Wall:
    """A calendar clock that a test advances."""

    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at


def made(folder: Path, wall: Wall | None = None, **config: Any) -> DecisionLog:
    return DecisionLog(
        DecisionLogConfig(dir=str(folder), **config),
        trieway="0.0",
        block_bytes=256,
        clock=lambda: 100.0,
        now=wall or Wall(),
    )


def text(folder: Path) -> str:
    read = zstandard.ZstdDecompressor().decompressobj
    return "".join(read().decompress(file.read_bytes()).decode() for file in sorted(folder.iterdir()))


def test_everything_that_replay_needs_comes_back(tmp_path: Path) -> None:
    log = made(tmp_path)
    blocks = (2**64 - 1, 0, 12345678901234567890)
    full = outcome(
        "a", session="chat-1", max_output_tokens=99, key=key(*blocks),
        decision=decision("w2", match_tokens=128.0, match_blocks=2, expected_ttft_s=0.2),
    )  # fmt: skip
    log.write(full, b"secret")
    log.write(outcome("b", at_s=101.5, error="worker_timeout", status=504, ttft_s=None), b"")
    log.close()

    first, second = read_decision_log(tmp_path)

    assert first.key.blocks == list(blocks)
    assert (first.key.unit_tokens, first.key.prompt_tokens) == (64.0, 202.0)
    assert (first.worker, first.match_tokens, first.expected_ttft_s, first.ttft_s) == ("w2", 128.0, 0.2, 0.25)
    assert (first.max_output_tokens, first.prompt_tokens, first.cached_tokens, first.completion_tokens) == (
        99, 200, 64, 10,
    )  # fmt: skip
    assert (first.arrival_s, second.arrival_s) == (0.0, 1.5)
    assert (second.status, second.error, second.ttft_s) == (504, "worker_timeout", None)


def test_neither_prompts_nor_session_names_are_in_it_unless_text_is_on(tmp_path: Path) -> None:
    hidden, shown = tmp_path / "hidden", tmp_path / "shown"
    for log in (made(hidden), made(shown, text=True)):
        log.write(outcome(session="alice@example.org"), b'{"messages": "my secret"}')
        log.close()

    assert "secret" not in text(hidden)
    assert "alice" not in text(hidden)
    lines = [json.loads(line) for line in text(shown).splitlines()]
    assert lines[0]["text"] is True
    assert lines[1]["session"] == "alice@example.org"
    assert json.loads(lines[1]["body"]) == {"messages": "my secret"}


def test_one_session_has_one_hash_so_that_its_requests_stay_together(tmp_path: Path) -> None:
    log = made(tmp_path)
    for request_id, session in (("1", "a"), ("2", "b"), ("3", "a")):
        log.write(outcome(request_id, session=session), b"")
    log.close()

    one, two, three = (each.session_id for each in read_decision_log(tmp_path))

    assert one == three
    assert one != two


def test_a_full_queue_drops_and_counts(tmp_path: Path) -> None:
    log = made(tmp_path, queue_requests=2)
    for i in range(5):
        log.write(outcome(f"r{i}"), b"")
    log.close()

    assert (log.written, log.dropped, log.failed) == (2, 3, 0)


def test_bodies_that_wait_are_bounded_in_bytes(tmp_path: Path) -> None:
    log = made(tmp_path, text=True, queue_bytes=100)
    for i in range(3):
        log.write(outcome(f"r{i}"), b"x" * 60)

    assert log.dropped == 2


@pytest.mark.parametrize("why", ["old", "full"])
def test_a_new_file_is_begun_when_the_last_is_old_or_full_and_the_oldest_go(tmp_path: Path, why: str) -> None:
    wall = Wall()
    limit: dict[str, Any] = {"max_file_age_s": 60.0} if why == "old" else {"max_file_bytes": 1}
    log = made(tmp_path, wall, keep_files=2, **limit)
    for i in range(4):
        log.write(outcome(f"r{i}"), b"")
        log._flush(log._take())
        wall.at += timedelta(seconds=61 if why == "old" else 1)
    log.close()

    assert len(list(tmp_path.iterdir())) == 2
    assert [each.request_id for each in read_decision_log(tmp_path)] == ["r2", "r3"]


def test_a_log_that_is_still_being_written_can_be_read(tmp_path: Path) -> None:
    log = made(tmp_path)
    log.write(outcome("a"), b"")
    log._flush(log._take())

    assert [each.request_id for each in read_decision_log(tmp_path)] == ["a"]
    log.close()


async def test_a_router_writes_what_it_did_and_loses_nothing_when_it_stops(
    tmp_path: Path, chat: dict[str, Any]
) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 3}}
    async with upstream(answer({"id": "x", "choices": [], "usage": usage})) as one:
        async with running(config(one.url, decision_log={"dir": str(tmp_path), "text": True})) as router:
            await router.client.post("/v1/chat/completions", json=chat, headers={"x-session-id": "s"})
            await router.client.post("/v1/chat/completions", content=b"nonsense")
            metrics = (await router.client.get("/metrics")).text

    logged = [json.loads(line) for line in text(tmp_path).splitlines()[1:]]
    assert json.loads(logged[0]["body"]) == chat
    assert (logged[0]["worker"], logged[0]["session"], logged[0]["cached_tokens"]) == ("w1", "s", 3)
    assert logged[1]["error"] == "invalid_body"
    assert [(one.session_id, one.completion_tokens) for one in read_decision_log(tmp_path)] == [("s", 4)]
    assert "trieway_decision_log_dropped_total 0.0" in metrics


async def test_the_task_writes_by_itself_and_once_more_when_it_is_cancelled(tmp_path: Path) -> None:
    log = made(tmp_path, flush_interval_s=0.001)
    task = asyncio.ensure_future(log.run())
    log.write(outcome("a"), b"")
    async with asyncio.timeout(20):
        while not log.written:
            await asyncio.sleep(0.001)
    log.write(outcome("b"), b"")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert {each.request_id for each in read_decision_log(tmp_path)} == {"a", "b"}


def test_a_folder_that_vanishes_costs_lines_and_not_the_router(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    log = made(folder)
    folder.rmdir()
    log.write(outcome("a"), b"")
    log._flush(log._take())
    folder.mkdir()
    log.write(outcome("b"), b"")
    log.close()

    assert (log.written, log.failed) == (1, 1)
    assert [each.request_id for each in read_decision_log(folder)] == ["b"]


def test_a_folder_that_cannot_be_made_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"file/logs cannot be made"):
        made(tmp_path / "file" / "logs")
