"""Requests of different namespaces share no cache: LoRA adapter, extra_key and cache_salt, on every route."""

from __future__ import annotations

from typing import Any

import pytest

PROMPT = "the same words again and again, enough of them to be found in a prefix cache; " * 4
ROUTES = {
    "/generate": {"text": PROMPT, "sampling_params": {"max_new_tokens": 1}},
    "/v1/completions": {"model": "m", "prompt": PROMPT, "max_tokens": 1},
    "/v1/chat/completions": {"model": "m", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 1},
}


async def cached(worker: Any, path: str, **fields: str) -> int:
    answer = (await worker.post(path, {**ROUTES[path], **fields})).json()
    if path == "/generate":
        return int(answer["meta_info"]["cached_tokens"])
    details = answer["usage"]["prompt_tokens_details"]
    return 0 if details is None else int(details["cached_tokens"])


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("field", ["cache_salt", "extra_key", "lora_path"])
async def test_a_prompt_is_found_in_its_own_namespace_only(start_worker: Any, path: str, field: str) -> None:
    async with start_worker(lora=True) as worker:
        assert await cached(worker, path) == 0
        assert await cached(worker, path, **{field: "a"}) == 0
        assert await cached(worker, path, **{field: "b"}) == 0
        assert await cached(worker, path, **{field: "a"}) > 0
        assert await cached(worker, path) > 0


async def test_an_adapter_named_with_the_model_is_the_one_named_apart(start_worker: Any) -> None:
    async with start_worker(lora=True) as worker:
        path = "/v1/chat/completions"
        assert await cached(worker, path, model="m:adapter") == 0
        assert await cached(worker, path, lora_path="adapter") > 0


async def test_salt_and_key_are_two_things(start_worker: Any) -> None:
    async with start_worker() as worker:
        assert await cached(worker, "/generate", cache_salt="x") == 0
        assert await cached(worker, "/generate", extra_key="x") == 0
        assert await cached(worker, "/generate", extra_key="x", cache_salt="x") == 0
