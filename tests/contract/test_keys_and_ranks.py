"""API keys, and data-parallel ranks: who is let in where, and who decides the rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from workers.sglang.cpu.flavours import ADMIN_API_KEY, API_KEY

FreshIds = Callable[[int], list[int]]
CHAT = {"model": "contract", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}


def status(server: Any, method: str, path: str, key: str | None, body: Any = None, scheme: str = "Bearer") -> int:
    headers = {} if key is None else {"authorization": f"{scheme} {key}"}
    answer = httpx.request(method, server.url + path, headers=headers, json=body, timeout=60)
    if answer.status_code == 401:
        assert answer.json() == {"error": "Unauthorized"}
    return answer.status_code


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/models", None),
        ("GET", "/model_info", None),
        ("GET", "/server_info", None),
        ("GET", "/v1/loads", None),
        ("POST", "/generate", {"text": "x", "sampling_params": {"max_new_tokens": 1}}),
        ("POST", "/v1/chat/completions", CHAT),
        ("POST", "/tokenize", {"prompt": "x"}),
    ],
    ids=str,
)
def test_ordinary_routes_want_the_api_key(guarded: Any, method: str, path: str, body: Any) -> None:
    assert status(guarded, method, path, None, body) == 401
    assert status(guarded, method, path, "wrong", body) == 401
    assert status(guarded, method, path, API_KEY, body) == 200


@pytest.mark.parametrize(
    ("method", "path", "body"), [("POST", "/flush_cache", None), ("POST", "/abort_request", {"rid": "nobody"})], ids=str
)
def test_routes_of_operators_want_the_admin_key(guarded: Any, method: str, path: str, body: Any) -> None:
    assert status(guarded, method, path, None, body) == 401
    assert status(guarded, method, path, API_KEY, body) == 401
    assert status(guarded, method, path, ADMIN_API_KEY, body) == 200


def test_the_admin_key_opens_no_ordinary_route(guarded: Any) -> None:
    assert status(guarded, "GET", "/v1/models", ADMIN_API_KEY) == 401


def test_another_scheme_than_bearer_is_refused(guarded: Any) -> None:
    assert status(guarded, "GET", "/v1/models", API_KEY, scheme="Basic") == 401


@pytest.mark.parametrize(("path", "expected"), [("/health", 200), ("/ready", 200), ("/metrics", 404)])
def test_probes_need_no_key(guarded: Any, path: str, expected: int) -> None:
    assert status(guarded, "GET", path, None) == expected


def test_an_unknown_path_wants_the_key_too(guarded: Any) -> None:
    assert status(guarded, "GET", "/nothing", None) == 401
    assert status(guarded, "GET", "/nothing", API_KEY) == 404


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", ["routed_dp_rank", "data_parallel_rank"])
def test_the_body_chooses_the_rank(guarded: Any, fresh_ids: FreshIds, name: str, rank: int) -> None:
    answer = guarded.generate(fresh_ids(5), **{name: rank})
    assert answer["meta_info"]["dp_rank"] == rank


def test_on_the_openai_routes_the_header_wins_over_the_body(guarded: Any, fresh_text: Callable[[int], str]) -> None:
    """Seen by the cache of rank 1, which only a request to rank 1 can have filled."""
    messages = [{"role": "user", "content": fresh_text(30)}]
    ids = guarded.tokenize(messages)
    body = {"model": "contract", "messages": messages, "max_tokens": 1, "routed_dp_rank": 0}
    guarded.ok("/v1/chat/completions", body, headers={"X-Data-Parallel-Rank": "1"})

    assert guarded.generate(ids, routed_dp_rank=0)["meta_info"]["cached_tokens"] < 5  # how every chat begins
    assert guarded.generate(ids, routed_dp_rank=1)["meta_info"]["cached_tokens"] == len(ids) - 1


@pytest.mark.parametrize("header", ["2", "-1", "x"])
def test_a_header_that_names_no_rank_is_a_400(guarded: Any, header: str) -> None:
    answer = guarded.post("/v1/chat/completions", CHAT, headers={"X-Data-Parallel-Rank": header})
    assert answer.status_code == 400
    assert answer.json()["object"] == "error"


def test_a_rank_out_of_range_is_a_400(guarded: Any) -> None:
    answer = guarded.post("/generate", {"text": "x", "routed_dp_rank": 2})
    assert answer.status_code == 400
    assert "routed_dp_rank=2 out of range [0, 2)" in answer.json()["error"]["message"]


def test_requests_that_name_no_rank_go_to_both(guarded: Any, fresh_ids: FreshIds) -> None:
    ranks = {guarded.generate(fresh_ids(5))["meta_info"]["dp_rank"] for _ in range(4)}
    assert ranks == {0, 1}
