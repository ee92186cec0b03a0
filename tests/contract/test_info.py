"""What a server says about itself: models, configuration, loads, health, metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from workers.sglang.cpu.flavours import KV_CAPACITY_TOKENS, MODEL

MODEL_INFO = {
    "model_path", "served_model_name", "tokenizer_path", "is_generation", "preferred_sampling_params", "weight_version",
    "load_format", "reasoning_parser", "tool_call_parser", "disaggregation_mode", "has_image_understanding",
    "has_audio_understanding", "model_type", "architectures",
}  # fmt: skip
SERVER_INFO = {
    "model_path", "tokenizer_path", "served_model_name", "host", "port", "page_size", "dp_size", "tp_size",
    "max_running_requests", "max_total_tokens", "chunked_prefill_size", "schedule_policy", "context_length",
    "enable_cache_report", "enable_metrics", "disaggregation_mode", "disable_radix_cache", "load_balance_method",
    "radix_eviction_policy", "random_seed", "launch_command", "status", "max_total_num_tokens", "max_req_input_len",
    "startup_time", "internal_states", "version", "frontend", "kv_events",
}  # fmt: skip
LOAD = [
    "timestamp", "dp_rank", "num_running_reqs", "num_waiting_reqs", "num_waiting_uncached_tokens", "num_used_tokens",
    "num_total_tokens", "num_active_tokens", "num_prealloc_ready_tokens", "max_total_num_tokens",
    "max_running_requests", "token_usage", "gen_throughput", "cache_hit_rate", "utilization",
    "total_prefill_uncached_tokens", "total_prefill_busy_us", "decode_moments",
]  # fmt: skip
METRICS = {
    "sglang:num_running_reqs", "sglang:num_queue_reqs", "sglang:token_usage", "sglang:full_token_usage",
    "sglang:cache_hit_rate", "sglang:gen_throughput", "sglang:num_used_tokens", "sglang:max_total_num_tokens",
    "sglang:page_size", "sglang:num_pages", "sglang:cached_tokens_total", "sglang:prompt_tokens_total",
    "sglang:generation_tokens_total", "sglang:num_requests_total",
    "sglang:time_to_first_token_seconds", "sglang:inter_token_latency_seconds", "sglang:e2e_request_latency_seconds",
    "sglang:queue_time_seconds", "sglang:http_requests_active",
}  # fmt: skip


def test_the_model_is_listed_under_its_served_name(worker: Any) -> None:
    answer = worker.get("/v1/models").json()
    (card,) = answer["data"]

    assert answer["object"] == "list"
    assert list(card) == ["id", "object", "created", "owned_by", "root", "parent", "max_model_len"]
    assert (card["id"], card["object"], card["owned_by"], card["root"]) == (MODEL, "model", "sglang", MODEL)
    assert card["max_model_len"] == 16_384
    assert worker.get(f"/v1/models/{MODEL}").json() == {**card, "created": pytest.approx(card["created"], abs=60)}


def test_a_model_that_is_not_served_is_a_404(worker: Any) -> None:
    answer = worker.get("/v1/models/other")

    assert answer.status_code == 404
    assert answer.json() == {
        "error": {
            "message": "The model 'other' does not exist",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


@pytest.mark.parametrize("path", ["/model_info", "/get_model_info"])
def test_model_info_has_what_clients_read(worker: Any, path: str) -> None:
    info = worker.get(path).json()

    assert set(info) - MODEL_INFO == (set() if worker.differs("`/model_info`") else {"embedding"})
    assert set(info) >= MODEL_INFO
    assert (info["served_model_name"], info["is_generation"], info["weight_version"]) == (MODEL, True, "default")
    assert info["disaggregation_mode"] == "null"


@pytest.mark.parametrize("path", ["/server_info", "/get_server_info"])
def test_server_info_has_what_routers_and_the_benchmarks_read(worker: Any, path: str) -> None:
    info = worker.get(path).json()

    assert set(info) >= SERVER_INFO
    if not worker.differs("`/server_info`"):
        assert len(info) > 300
    assert (info["page_size"], info["dp_size"], info["max_total_num_tokens"]) == (16, 1, KV_CAPACITY_TOKENS)
    assert info["max_req_input_len"] == KV_CAPACITY_TOKENS - 6
    assert info["status"] == "ready"
    assert info["version"] == "0.5.21"
    (state,) = info["internal_states"]
    assert state["memory_usage"]["token_capacity"] == KV_CAPACITY_TOKENS
    assert state["effective_max_running_requests_per_dp"] > 0
    assert state["dp_size"] == 1
    assert state["last_gen_throughput"] >= 0


def test_loads_have_exactly_these_fields_and_sections(worker: Any) -> None:
    answer = worker.get("/v1/loads").json()
    (load,) = answer["loads"]

    assert list(answer) == ["timestamp", "version", "accelerator", "num_accelerators", "loads"]
    assert list(load) == [*LOAD, "memory", "disaggregation", "queues"]
    assert load["max_total_num_tokens"] == load["memory"]["token_capacity"] == KV_CAPACITY_TOKENS
    assert set(load["queues"]) == {"waiting", "grammar", "paused", "retracted", "prealloc_ready"}
    assert load["disaggregation"]["mode"] == "null"
    if not worker.differs("`/v1/loads` `decode_moments`"):
        assert len(load["decode_moments"]) == 6


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("include=core", LOAD),
        ("include=memory", [*LOAD, "memory"]),
        ("include=core,queues", [*LOAD, "queues"]),
        ("dp_rank=0&include=disagg", [*LOAD, "disaggregation"]),
    ],
)
def test_loads_can_be_asked_for_in_part(worker: Any, query: str, fields: list[str]) -> None:
    (load,) = worker.get(f"/v1/loads?{query}").json()["loads"]
    assert list(load) == fields


def test_the_loads_of_a_rank_that_is_not_there_are_none(worker: Any) -> None:
    assert worker.get("/v1/loads?dp_rank=7").json()["loads"] == []
    assert worker.get("/v1/loads?dp_rank=x").status_code == 400


def test_loads_are_there_for_prometheus_too(worker: Any) -> None:
    answer = worker.get("/v1/loads?format=prometheus")

    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    for name in ("num_running_reqs", "token_usage", "memory_token_capacity", "queues_waiting"):
        assert f'\nsglang_{name}{{dp_rank="0"}} ' in answer.text


def test_an_unknown_section_of_loads_is_an_error(worker: Any) -> None:
    defect = "A JSON array as the body of a chat request; an unknown section in `/v1/loads?include=`"
    assert worker.get("/v1/loads?include=bogus").status_code == (400 if worker.differs(defect) else 500)


def test_metrics_have_sglangs_names(worker: Any, fresh_ids: Callable[[int], list[int]]) -> None:
    ids = fresh_ids(40)
    worker.generate(ids, 2)
    worker.events("/generate", {"input_ids": ids, "sampling_params": {"max_new_tokens": 4, "ignore_eos": True}})
    answer = worker.get("/metrics")
    names = {line.split()[2] for line in answer.text.splitlines() if line.startswith("# TYPE ")}
    named = names | {f"{name}_total" for name in names}

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert named >= METRICS
    labels = next(line for line in answer.text.splitlines() if line.startswith("sglang:num_running_reqs{"))
    assert f'model_name="{MODEL}"' in labels


def test_metrics_count_cached_tokens(worker: Any, fresh_ids: Callable[[int], list[int]], until: Any) -> None:
    def counted() -> float:
        lines = worker.get("/metrics").text.splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith("sglang:cached_tokens_total{") and 'cache_source="device"' in line
        )

    ids = fresh_ids(49)
    worker.generate(ids)
    before = counted()
    worker.generate(ids)
    until(lambda: counted() == before + 48)


def test_metrics_count_evicted_tokens(worker: Any, fresh_ids: Callable[[int], list[int]], until: Any) -> None:
    for _ in range(3):
        worker.generate(fresh_ids(KV_CAPACITY_TOKENS // 2))
    until(lambda: "\nsglang:evicted_tokens_total{" in worker.get("/metrics").text)


@pytest.mark.parametrize("path", ["/health", "/health_generate", "/ready", "/ping"])
def test_health_is_an_empty_200(worker: Any, path: str) -> None:
    answer = worker.get(path)
    assert (answer.status_code, answer.content) == (200, b"")


def test_the_root_says_what_runs(worker: Any) -> None:
    assert worker.get("/").json() == "SGLang is running"
    assert worker.client.head("/").status_code == 200


def test_metrics_are_absent_unless_switched_on(guarded: Any) -> None:
    assert guarded.get("/metrics").status_code == 404


def test_each_rank_reports_its_own_load(guarded: Any) -> None:
    loads = guarded.get("/v1/loads").json()["loads"]
    assert [load["dp_rank"] for load in loads] == [0, 1]
    assert len(guarded.get("/server_info").json()["internal_states"]) == 2
