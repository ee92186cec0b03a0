"""Which paths and methods are model calls, and where they go."""

from __future__ import annotations

import pytest

from router.request.endpoints import is_model_call
from router.request.parse import NEEDS
from router.request.prompt_key import CANONICAL
from router_fakes import config, running, upstream


def test_every_model_call_has_a_prompt_key() -> None:
    assert set(CANONICAL) == set(NEEDS)


@pytest.mark.parametrize(
    ("method", "path", "model_call"),
    [("POST", "/generate", True), ("PUT", "/generate", True), ("PUT", "/v1/chat/completions", False),
     ("GET", "/generate", False), ("POST", "/tokenize", False)],
)  # fmt: skip
def test_model_calls_are_told_by_path_and_method(method: str, path: str, model_call: bool) -> None:
    assert is_model_call(method, path) is model_call


async def test_native_pooling_calls_and_puts_reach_a_worker() -> None:
    async with upstream() as worker, running(config(worker.url)) as router:
        calls = (("PUT", "/generate"), ("POST", "/encode"), ("POST", "/v1/classify"), ("GET", "/encode"))
        body = {"text": "x", "input": "x"}
        statuses = [(await router.client.request(*call, json=body)).status_code for call in calls]

    assert statuses == [200, 200, 200, 405]
    assert [call.path for call in worker.calls] == ["/generate", "/encode", "/v1/classify"]


async def test_a_model_is_described_by_its_name_and_an_unknown_one_is_404() -> None:
    async with upstream(model="org/name") as worker, running(config(worker.url)) as router:
        known = await router.client.get("/v1/models/org/name")
        unknown = await router.client.get("/v1/models/other")
        ping = await router.client.get("/ping")

    assert known.json()["id"] == "org/name"
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert (ping.status_code, ping.content) == (200, b"")
