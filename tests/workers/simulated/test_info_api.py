"""What the worker says about itself: models, configuration, load, health."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest


async def test_models_lists_the_served_name(start_worker: Any) -> None:
    async with start_worker(model="qwen/x", context_length=5000) as worker:
        (card,) = (await worker.get("/v1/models")).json()["data"]
        assert (card["id"], card["owned_by"], card["max_model_len"]) == ("qwen/x", "sglang", 5000)
        assert (await worker.get("/v1/models/qwen%2Fx")).json()["id"] == "qwen/x"
        missing = await worker.get("/v1/models/nope")
        assert missing.status_code == 404
        assert missing.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("path", ["/model_info", "/get_model_info"])
async def test_model_info_names_the_model(worker: Any, path: str) -> None:
    info = (await worker.get(path)).json()
    assert (info["served_model_name"], info["is_generation"]) == ("simulated", True)


@pytest.mark.parametrize("path", ["/server_info", "/get_server_info"])
async def test_server_info_holds_the_configuration_and_no_kv_events_unless_switched_on(
    start_worker: Any, path: str
) -> None:
    async with start_worker(page_size=16, dp_size=2, kv_capacity_tokens=4096) as worker:
        info = (await worker.get(path)).json()
        assert (info["page_size"], info["dp_size"], info["max_total_num_tokens"]) == (16, 2, 4096)
        assert len(info["internal_states"]) == 2
        assert info["kv_events"] is None


async def test_server_info_does_not_reveal_the_keys(start_worker: Any) -> None:
    async with start_worker(api_key="sesame", admin_api_key="open") as worker:
        text = (await worker.get("/server_info", headers={"authorization": "Bearer sesame"})).text
        assert "sesame" not in text


async def test_loads_reports_every_rank_or_the_one_asked_for(start_worker: Any) -> None:
    async with start_worker(dp_size=2) as worker:
        ranks = [load["dp_rank"] for load in (await worker.get("/v1/loads")).json()["loads"]]
        assert ranks == [0, 1]
        ranks = [load["dp_rank"] for load in (await worker.get("/v1/loads?dp_rank=1")).json()["loads"]]
        assert ranks == [1]
        assert (await worker.get("/v1/loads?dp_rank=7")).json()["loads"] == []
        assert (await worker.get("/v1/loads?dp_rank=x")).status_code == 400


async def test_loads_counts_running_and_waiting_requests_and_used_tokens(start_worker: Any) -> None:
    async with start_worker(speed=1, max_running_requests=1) as worker:
        body = {"text": "word " * 200, "sampling_params": {"max_new_tokens": 100_000, "ignore_eos": True}}
        tasks = [asyncio.ensure_future(worker.post("/generate", body)) for _ in range(3)]

        async def seen() -> bool:
            load = await worker.loads()
            return (load["num_running_reqs"], load["num_waiting_reqs"]) == (1, 2)

        await worker.until(seen)
        load = await worker.loads()
        assert load["num_used_tokens"] >= 250
        assert 0 < load["token_usage"] < 1
        assert load["num_total_tokens"] >= load["num_used_tokens"]
        await worker.post("/abort_request", {"abort_all": True})
        await asyncio.gather(*tasks)
        load = await worker.loads()
        assert (load["num_running_reqs"], load["num_waiting_reqs"], load["num_used_tokens"]) == (0, 0, 0)


async def test_loads_sections_can_be_chosen(worker: Any) -> None:
    core = (await worker.get("/v1/loads?include=core")).json()["loads"][0]
    assert not {"memory", "queues", "disaggregation"} & set(core)
    both = (await worker.get("/v1/loads?include=core,memory")).json()["loads"][0]
    assert "memory" in both
    assert "queues" not in both
    assert (await worker.get("/v1/loads?include=bogus")).status_code == 400


async def test_loads_come_as_prometheus_text_too(worker: Any) -> None:
    response = await worker.get("/v1/loads?format=prometheus")
    assert response.headers["content-type"].startswith("text/plain")
    assert 'sglang_num_running_reqs{dp_rank="0"} 0\n' in response.text
    assert "sglang_queues_waiting{" in response.text


@pytest.mark.parametrize("path", ["/health", "/health_generate"])
async def test_health_takes_a_second_of_looking_and_is_empty(worker: Any, path: str) -> None:
    started_s = time.monotonic()
    response = await worker.get(path)
    assert (response.status_code, response.content) == (200, b"")
    assert time.monotonic() - started_s >= 0.9


async def test_a_busy_worker_is_healthy_without_a_request_of_its_own(start_worker: Any) -> None:
    async with start_worker(speed=1) as worker:
        body = {"text": "x", "rid": "a", "sampling_params": {"max_new_tokens": 100_000, "ignore_eos": True}}
        task = asyncio.ensure_future(worker.post("/generate", body))
        health = asyncio.ensure_future(worker.get("/health"))
        await asyncio.sleep(0.2)
        assert (await worker.loads())["num_running_reqs"] == 1
        assert (await health).status_code == 200
        await worker.post("/abort_request", {"rid": "a"})
        await task


async def test_ready_ping_and_the_root_answer_at_once(worker: Any) -> None:
    for path, text in (("/ready", ""), ("/ping", ""), ("/", '"SGLang is running"')):
        response = await worker.get(path)
        assert (response.status_code, response.text) == (200, text)


async def test_profiling_is_acknowledged(worker: Any) -> None:
    assert (await worker.post("/start_profile", {})).status_code == 200
    assert (await worker.get("/stop_profile")).status_code == 200
