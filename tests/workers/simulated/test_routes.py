"""Paths, methods, keys and content types."""

from __future__ import annotations

from typing import Any

import pytest

from workers.simulated.routes import ROUTES, Access

KEY = {"authorization": "Bearer k"}
ADMIN = {"authorization": "Bearer a"}


async def test_an_unknown_path_is_404_and_a_wrong_method_405_that_names_the_right_ones(worker: Any) -> None:
    response = await worker.get("/get_load")
    assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})
    response = await worker.get("/generate")
    assert (response.status_code, response.headers["allow"]) == (405, "POST, PUT")
    assert (await worker.client.delete("/v1/models")).status_code == 405


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/generate", "/v1/embeddings", "/tokenize"])
@pytest.mark.parametrize("kind", ["text/plain", None])
async def test_a_body_that_is_not_declared_json_is_refused(worker: Any, path: str, kind: str | None) -> None:
    headers = {"content-type": kind} if kind else {}
    response = await worker.client.post(path, content=b"{}", headers=headers)
    assert response.status_code == 400
    assert response.json()["type"] == "Bad Request"


async def test_a_content_type_with_a_charset_is_json_too(worker: Any) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert (await worker.client.post("/tokenize", content=b'{"prompt":"x"}', headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("options", "headers", "normal", "admin"),
    [
        ({}, {}, 200, 200),
        ({"api_key": "k"}, {}, 401, 401),
        ({"api_key": "k"}, KEY, 200, 200),
        ({"api_key": "k"}, {"authorization": "bearer k"}, 200, 200),
        ({"api_key": "k"}, {"authorization": "Basic k"}, 401, 401),
        ({"api_key": "k"}, {"authorization": "Bearer kk"}, 401, 401),
        ({"admin_api_key": "a"}, {}, 200, 401),
        ({"admin_api_key": "a"}, ADMIN, 200, 200),
        ({"api_key": "k", "admin_api_key": "a"}, KEY, 200, 401),
        ({"api_key": "k", "admin_api_key": "a"}, ADMIN, 401, 200),
    ],
    ids=str,
)
async def test_keys_open_what_they_open_on_a_real_server(
    start_worker: Any, options: dict[str, str], headers: dict[str, str], normal: int, admin: int
) -> None:
    async with start_worker(**options) as worker:
        assert (await worker.get("/v1/models", headers=headers)).status_code == normal
        assert (await worker.post("/tokenize", {"prompt": "x"}, headers=headers)).status_code == normal
        assert (await worker.get("/flush_cache", headers=headers)).status_code == admin
        assert (await worker.get("/ready", headers=headers)).status_code == 200
        assert (await worker.get("/metrics", headers=headers)).status_code == 200
        missing = await worker.get("/nope", headers=headers)
        assert missing.status_code == (404 if normal == 200 else 401)


async def test_a_refusal_has_the_real_servers_body(start_worker: Any) -> None:
    async with start_worker(api_key="k") as worker:
        response = await worker.chat("x")
        assert (response.status_code, response.json()) == (401, {"error": "Unauthorized"})


def test_only_the_routes_that_change_the_server_want_the_admin_key() -> None:
    admin = {path for path, route in ROUTES.items() if route.access is Access.ADMIN}
    assert admin == {"/flush_cache", "/abort_request", "/start_profile", "/stop_profile"}
