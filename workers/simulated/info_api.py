"""What a server says about itself: models, configuration, load, health. Called by routes.py. Reads only.

Field names and order are those of SGLang 0.5.21; fields that describe a GPU process nobody has here are left out.
"""

from __future__ import annotations

import asyncio
import datetime
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, unquote

from workers.simulated.errors import BadRequest
from workers.simulated.openai_stream import unix_time
from workers.simulated.reply import Reply, Request
from workers.simulated.worker import SimulatedWorker
from workers.simulated.writer import Sampling

VERSION = "0.5.21"
"""The SGLang release whose answers are imitated."""

HEALTH_TIMEOUT_S = 20.0  # SGLANG_HEALTH_CHECK_TIMEOUT
HEALTH_LOOK_S = 1.0  # the real server looks once a second whether the scheduler has put anything out
HEALTH_RID_PREFIX = "HEALTH_CHECK"

Handler = Callable[[SimulatedWorker, Request, Reply], Awaitable[None]]

_ONE_TOKEN = Sampling(max_new_tokens=1, ignore_eos=True)


def model_card(worker: SimulatedWorker) -> dict[str, Any]:
    name = worker.options.model
    return {
        "id": name,
        "object": "model",
        "created": unix_time(),
        "owned_by": "sglang",
        "root": name,
        "parent": None,
        "max_model_len": worker.options.context_length,
    }


async def models(worker: SimulatedWorker, request: Request, reply: Reply) -> None:
    """GET /v1/models."""
    reply.send_json({"object": "list", "data": [model_card(worker)]})


async def model(worker: SimulatedWorker, request: Request, reply: Reply) -> None:
    """GET /v1/models/{name}."""
    name = unquote(request.path.removeprefix("/v1/models/"))
    if name == worker.options.model:
        reply.send_json(model_card(worker))
        return
    error = {
        "message": f"The model '{name}' does not exist",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    reply.send_json({"error": error}, 404)


async def model_info(worker: SimulatedWorker, request: Request, reply: Reply) -> None:
    """GET /model_info and the deprecated /get_model_info."""
    name = worker.options.model
    reply.send_json(
        {
            "model_path": name,
            "served_model_name": name,
            "tokenizer_path": name,
            "is_generation": True,
            "preferred_sampling_params": None,
            "weight_version": "default",
            "load_format": "auto",
            "reasoning_parser": None,
            "tool_call_parser": "simulated",
            "disaggregation_mode": "null",
            "has_image_understanding": True,
            "has_audio_understanding": False,
            "model_type": "simulated",
            "architectures": ["SimulatedForCausalLM"],
        }
    )


async def server_info(worker: SimulatedWorker, request: Request, reply: Reply) -> None:
    """GET /server_info and the deprecated /get_server_info."""
    options = worker.options
    reply.send_json(
        {
            **options.as_server_args(),
            "launch_command": "trieway simulate",
            "status": "ready" if worker.ready else "starting",
            "max_total_num_tokens": options.kv_capacity_tokens,
            "max_req_input_len": options.max_prompt_tokens,
            "startup_time": 0.0,
            "internal_states": [_internal_state(worker, rank) for rank in range(len(worker.ranks))],
            "version": VERSION,
            "frontend": "simulated",
            "kv_events": options.kv_events.description(options) if options.kv_events else None,
        }
    )


def _internal_state(worker: SimulatedWorker, rank: int) -> dict[str, Any]:
    options = worker.options
    return {
        **options.as_server_args(),
        "dp_rank": rank,
        "last_gen_throughput": worker.ranks[rank].load()["gen_throughput"],
        "memory_usage": {"token_capacity": options.kv_capacity_tokens},
        "effective_max_running_requests_per_dp": options.max_running_requests,
    }


_SECTIONS = {"core", "memory", "spec", "lora", "disagg", "queues", "all"}


async def loads(worker: SimulatedWorker, request: Request, reply: Reply) -> None:
    """GET /v1/loads?dp_rank=&include=&format=: one report per rank."""
    query = {key: values[0] for key, values in parse_qs(request.query).items()}
    include = {part.strip() for part in query.get("include", "all").split(",")}
    if not include <= _SECTIONS:
        raise BadRequest(
            f"Invalid include sections: {include - _SECTIONS}. Valid options: {sorted(_SECTIONS)}", kind="400"
        )
    ranks = range(len(worker.ranks))
    if "dp_rank" in query:
        try:
            wanted = int(query["dp_rank"])
        except ValueError as error:
            raise BadRequest("dp_rank must be an integer", kind="Bad Request") from error
        ranks = range(wanted, wanted + 1) if wanted in ranks else range(0)
    now = datetime.datetime.now(datetime.UTC)
    reports = [_load_report(worker, rank, include, now.timestamp()) for rank in ranks]
    if query.get("format") == "prometheus":
        reply.send(_loads_as_prometheus(reports), content_type=b"text/plain; version=0.0.4; charset=utf-8")
        return
    reply.send_json(
        {
            "timestamp": now.isoformat(),
            "version": VERSION,
            "accelerator": "simulated",
            "num_accelerators": 1,
            "loads": reports,
        }
    )


def _load_report(worker: SimulatedWorker, rank: int, include: set[str], timestamp: float) -> dict[str, Any]:
    load = worker.ranks[rank].load()
    report: dict[str, Any] = {"timestamp": timestamp, "dp_rank": rank, **load}
    everything = "all" in include
    if everything or "memory" in include:
        report["memory"] = {
            "weight_gb": 0.0,
            "kv_cache_gb": 0.0,
            "graph_gb": 0.0,
            "token_capacity": load["max_total_num_tokens"],
        }
    if everything or "disagg" in include:
        report["disaggregation"] = {
            "mode": "null",
            "prefill_bootstrap_queue_reqs": 0,
            "prefill_inflight_queue_reqs": 0,
            "decode_prealloc_queue_reqs": 0,
            "decode_transfer_queue_reqs": 0,
            "decode_retracted_queue_reqs": 0,
            "kv_transfer_speed_gb_s": 0.0,
            "kv_transfer_latency_ms": 0.0,
        }
    if everything or "queues" in include:
        waiting = load["num_waiting_reqs"]
        report["queues"] = {"waiting": waiting, "grammar": 0, "paused": 0, "retracted": 0, "prealloc_ready": 0}
    return report


def _loads_as_prometheus(reports: list[dict[str, Any]]) -> bytes:
    samples: dict[str, list[str]] = {}

    def add(name: str, rank: int, value: object) -> None:
        if isinstance(value, int | float):
            samples.setdefault(name, []).append(f'{name}{{dp_rank="{rank}"}} {value}')

    for report in reports:
        rank = report["dp_rank"]
        for key, value in report.items():
            if isinstance(value, dict):
                prefix = {"disaggregation": "disagg"}.get(key, key)
                for inner, number in value.items():
                    add(f"sglang_{prefix}_{inner}", rank, number)
            elif key != "dp_rank":
                add(f"sglang_{key}", rank, value)
    lines = [line for name, rows in samples.items() for line in (f"# TYPE {name} gauge", *rows)]
    return ("\n".join(lines) + "\n").encode()


async def health(worker: SimulatedWorker, request: Request, reply: Reply) -> None:
    """GET /health and /health_generate: 200 once any engine has put something out since we asked, 503 if none does.

    An idle engine is given one token to generate; a busy one is left alone. So the answer takes at least a second.
    """
    if not worker.ready:
        reply.send(b"", 503, None)
        return
    asked_s = time.monotonic()
    if any(rank.idle for rank in worker.ranks):
        worker.submit_alone([0], _ONE_TOKEN, rid=f"{HEALTH_RID_PREFIX}_{uuid.uuid4().hex}")
    while time.monotonic() < asked_s + HEALTH_TIMEOUT_S:
        await asyncio.sleep(HEALTH_LOOK_S)
        if worker.last_output_s > asked_s:
            reply.send(b"", 200, None)
            return
    reply.send(b"", 503, None)


async def ready(worker: SimulatedWorker, request: Request, reply: Reply) -> None:
    """GET /ready: whether start-up is over."""
    reply.send(b"", 200 if worker.ready else 503, None)


def fixed_text(text: bytes, content_type: bytes | None = None) -> Handler:
    """A handler that always answers `text`."""

    async def handler(worker: SimulatedWorker, request: Request, reply: Reply) -> None:
        reply.send(text, content_type=content_type)

    return handler
