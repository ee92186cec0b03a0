"""Keys at the socket: who gets in, what a worker and a log see of a key, and which routes want which."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from router.security.access import Access
from router.security.client import Client
from router.security.keys_file import entry
from router_fakes import answer, config, running, upstream

CHAT = "/v1/chat/completions"
USER, ADMIN, SLOW = "tw-user-CANARY", "tw-admin-CANARY", "tw-slow-CANARY"


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "keys.toml"
    path.write_text(
        entry(USER, Client(name="user", models=frozenset({"m"})))
        + entry(ADMIN, Client(name="root", admin=True))
        + entry(SLOW, Client(name="slow", rate_per_s=0.01, concurrency=1))
    )
    return {"api_keys_file": str(path)}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_a_model_call_needs_a_key_for_its_model_and_the_worker_never_sees_it(
    keys: dict[str, str], chat: dict[str, Any]
) -> None:
    async with upstream() as worker, running_with(worker.url, keys) as router:
        results = [
            await router.client.post(CHAT, json={**chat, "model": model}, headers=headers)
            for headers, model in (
                ({}, "m"), (bearer("tw-wrong"), "m"), (bearer(ADMIN), "m"), (bearer(USER), "other"),
                (bearer(USER), "m"), ({"x-api-key": USER}, "m"),
            )
        ]  # fmt: skip

    assert [each.status_code for each in results] == [401, 401, 401, 403, 200, 200]
    assert [each.json()["error"]["code"] for each in results[:4]] == ["invalid_api_key"] * 3 + ["model_forbidden"]
    assert len(worker.calls) == 2
    assert "CANARY" not in str([call.headers for call in worker.calls])


async def test_a_request_that_names_no_model_is_served_by_the_model_of_its_key(
    keys: dict[str, str], chat: dict[str, Any]
) -> None:
    """/generate has no field for a model, and "default" is SGLang's word for whatever it serves."""
    unnamed = {"text": "Hello"}, {**chat, "model": "default"}, {"messages": chat["messages"]}
    async with upstream(model="m") as own, upstream(model="secret") as other:
        settings = config(f"own={own.url}", f"other={other.url}", security=keys)
        async with running(settings, headers=bearer(ADMIN)) as router:
            answers = [
                await router.client.post(path, json=body, headers=bearer(USER))
                for path, body in zip(("/generate", CHAT, CHAT), unnamed, strict=True)
                for _ in range(2)
            ]
            named = await router.client.post(CHAT, json={**chat, "model": "secret"}, headers=bearer(USER))

    assert {each.status_code for each in answers} == {200}
    assert (len(own.calls), len(other.calls)) == (6, 0)
    assert named.status_code == 403


async def test_a_key_none_of_whose_models_is_served_is_told_so_where_it_names_none(keys: dict[str, str]) -> None:
    async with upstream(model="secret") as worker, running_with(worker.url, keys) as router:
        refused = await router.client.post("/generate", json={"text": "Hello"}, headers=bearer(USER))

    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_forbidden")
    assert worker.calls == []


def test_without_a_word_of_any_worker_the_first_model_of_the_key_is_waited_for() -> None:
    client = Client(name="user", models=frozenset({"b", "a"}))

    assert Access().routed_model(client, None, frozenset) == "a"
    assert Access().routed_model(client, None, lambda: {"b", "c"}) == "b"
    assert Access().routed_model(Client(name="all"), None, frozenset) is None


async def test_control_routes_need_an_admin_key_and_probes_none(keys: dict[str, str]) -> None:
    async with upstream() as worker, running_with(worker.url, keys) as router:
        get, post = router.client.get, router.client.post
        open_ = [(await get(path)).status_code for path in ("/health", "/ready", "/ping", "/version", "/metrics")]
        control = ("/workers", "/dashboard", "/queue", "/docs", "/server_info")
        closed = [(await get(path)).status_code for path in control]
        users = [(await get(path, headers=bearer(USER))).status_code for path in ("/v1/models", "/workers", "/queue")]
        admins = [(await get(path, headers=bearer(ADMIN))).status_code for path in ("/workers", "/queue", "/v1/models")]
        flush = [(await post("/flush_cache", headers=headers)).status_code for headers in ({}, bearer(USER))]
        browser = await get("/workers", auth=("any", ADMIN))
        forged = await post("/workers/w1/drain", auth=("any", ADMIN))

    assert open_ == [200] * 5
    assert closed == [401] * 5
    assert users == [200, 403, 403]
    assert admins == [200, 200, 401]
    assert flush == [401, 403]
    assert (browser.status_code, forged.status_code) == (200, 401)


async def test_a_key_has_its_rate_and_is_told_when_to_come_back(keys: dict[str, str], chat: dict[str, Any]) -> None:
    async with upstream() as worker, running_with(worker.url, keys) as router:
        first, second = [await router.client.post(CHAT, json=chat, headers=bearer(SLOW)) for _ in range(2)]

    assert (first.status_code, second.status_code) == (200, 429)
    assert second.json()["error"]["code"] == "rate_limited"
    assert 90 <= int(second.headers["retry-after"]) <= 100


async def test_no_key_and_no_prompt_stands_in_logs_metrics_or_errors(
    keys: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpcore").setLevel(logging.WARNING)  # as setup_logging does
    logging.getLogger("httpx").setLevel(logging.WARNING)
    secret = {"model": "m", "messages": [{"role": "user", "content": "PROMPT-CANARY"}]}
    async with upstream(answer({"message": "no"}, 500)) as worker, running_with(worker.url, keys) as router:
        seen = ""
        for headers in (bearer(USER), bearer("tw-wrong-CANARY"), {}):
            seen += (await router.client.post(CHAT, json=secret, headers=headers)).text
        router.client.headers.update(bearer(ADMIN))
        for path in ("/metrics", "/queue", "/workers", "/workers/w1"):
            seen += (await router.client.get(path)).text

    assert "CANARY" not in seen + caplog.text


async def test_a_worker_is_not_added_from_a_network_that_was_not_named() -> None:
    async with upstream() as worker, running(config(worker.url)) as router:
        urls = ("http://169.254.169.254", "http://10.255.255.1:80", "ftp://127.0.0.1", "http://127.0.0.1:1")
        found = [(await router.client.post("/workers", json={"url": url})).status_code for url in urls]

    assert found == [400, 400, 400, 201]


async def test_a_page_of_another_site_changes_nothing_even_without_keys() -> None:
    async with upstream() as worker, running(config(worker.url)) as router:
        url = "/workers/w1/drain"
        foreign = [
            (await router.client.post(url, headers={"origin": origin})).status_code
            for origin in ("http://evil.example", "null", f"http://127.0.0.1:{router.port + 1}")
        ]
        state = (await router.workers())["w1"]["state"]
        own = await router.client.post(url, headers={"origin": f"http://127.0.0.1:{router.port}"})

    assert foreign == [403, 403, 403]
    assert state == "ready"
    assert own.status_code == 200


def running_with(url: str, keys: dict[str, str]) -> Any:
    """A router with keys; its client is an admin before and after the test's own block."""
    return _Keyed(url, keys)


class _Keyed:
    def __init__(self, url: str, keys: dict[str, str]) -> None:
        self._running = running(config(url, security=keys), headers=bearer(ADMIN))

    async def __aenter__(self) -> Any:
        router = await self._running.__aenter__()
        del router.client.headers["authorization"]
        self._client = router.client
        return router

    async def __aexit__(self, *error: Any) -> None:
        self._client.headers.update(bearer(ADMIN))
        await self._running.__aexit__(*error)
