"""Workers' API keys reach the workers they are for, in every kind of call, and are shown to nobody."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from router.errors import ConfigError
from router.fleet.api_keys import check_names, read_keys
from router_fakes import answer, config, running, upstream

CHAT = "/v1/chat/completions"
SECRET, OTHER = "sk-secret-of-all", "sk-secret-of-one"


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "all").write_text(f"{SECRET}\n")
    (tmp_path / "one").write_text(OTHER)
    return str(tmp_path / "all"), f"gpu={tmp_path / 'one'}"


async def test_keys_are_sent_with_every_call_and_replace_the_clients(
    chat: dict[str, Any], files: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    asked: list[str | None] = []

    async def loads(call: Any, writer: Any) -> None:
        asked.append(call.header("authorization"))
        await answer({"loads": []})(call, writer)

    async with upstream() as one, upstream() as two:
        two.gets["/v1/loads"] = loads
        settings = config(one.url, f"gpu={two.url}", worker_api_key_file=list(files), load={"interval_s": 0.02})
        async with running(settings) as router:
            headers = {"authorization": "Bearer client"}
            for _ in range(2):
                await router.client.post(CHAT, json=chat, headers=headers)
            await router.client.post("/flush_cache", headers=headers)
            shown = (await router.client.get("/workers")).text + (await router.client.get("/metrics")).text
            async with upstream() as third:
                added = await router.client.post("/workers", json={"url": third.url, "api_key": "sk-third"})
                refused = await router.client.post("/workers", json={"url": "http://x:1", "api_key": "sk bad"})
                await router.until(lambda all_: all_["w2"]["state"] == "ready")
                for _ in range(3):
                    await router.client.post(CHAT, json=chat, headers=headers)

    assert {call.header("authorization") for call in one.calls} == {f"Bearer {SECRET}"}
    assert {call.header("authorization") for call in two.calls} == {f"Bearer {OTHER}"}
    assert {call.header("authorization") for call in third.calls} == {"Bearer sk-third"}
    assert set(asked) == {f"Bearer {OTHER}"}
    assert added.json()["has_api_key"] is True
    assert refused.status_code == 400
    for said in (shown, added.text, refused.text, caplog.text):
        assert "sk-" not in said
        assert "sk bad" not in said


async def test_a_worker_without_a_key_gets_the_clients(chat: dict[str, Any]) -> None:
    async with upstream() as worker, running(config(worker.url)) as router:
        await router.client.post(CHAT, json=chat, headers={"authorization": "Bearer client"})
        shown = (await router.workers())["w1"]

    assert worker.calls[0].header("authorization") == "Bearer client"
    assert shown["has_api_key"] is False


async def test_a_worker_added_by_anyone_never_gets_the_configured_key(
    chat: dict[str, Any], files: tuple[str, str]
) -> None:
    async with upstream() as worker, running(config(worker_api_key_file=[files[0]]), ready=0) as router:
        await router.client.post("/workers", json={"url": worker.url})
        await router.until(lambda all_: all_["w1"]["state"] == "ready")
        await router.client.post(CHAT, json=chat)

    assert worker.calls[0].header("authorization") is None


@pytest.mark.parametrize("content", ["", "two words", "line\nline", "\x00", "é"])
def test_a_file_without_a_key_is_an_error_that_does_not_show_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "key").write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_keys([str(tmp_path / "key")])

    assert not content.strip() or content not in caught.value.message


def test_missing_files_double_files_and_unknown_names_are_errors(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k")
    for specs in ([str(tmp_path / "nothing")], [str(tmp_path)], [str(tmp_path / "key")] * 2):
        with pytest.raises(ConfigError, match="worker_api_key_file"):
            read_keys(specs)
    with pytest.raises(ConfigError, match="no worker 'b'"):
        check_names(read_keys([f"b={tmp_path / 'key'}"]), ["a"])
