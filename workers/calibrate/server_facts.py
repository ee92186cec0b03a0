"""What must be known of a server before it is measured: limits, versions, hardware. Read from its info routes.

`ServerFacts` also says how a simulated engine must be configured to be the same server. Not here: HTTP (http_runner).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workers.simulated.engine_config import EngineConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """One server. Tokens are those of one DP rank. `overlap`: it plans a step while the one before it runs.
    `prefill_sizes`: token counts for which it has recorded a prefill step's work.
    """

    model: str
    hardware: str
    sglang_version: str
    kv_capacity_tokens: int
    max_prompt_tokens: int
    chunked_prefill_tokens: int
    max_prefill_tokens: int
    max_running_requests: int
    page_size: int
    schedule_policy: str
    overlap: bool
    prefill_sizes: tuple[int, ...] = ()

    def engine_config(self) -> EngineConfig:
        """The simulated engine with this server's limits."""
        return EngineConfig(
            kv_capacity_tokens=self.kv_capacity_tokens,
            page_size=self.page_size,
            max_running_requests=self.max_running_requests,
            chunked_prefill_tokens=self.chunked_prefill_tokens,
            max_prefill_tokens=self.max_prefill_tokens,
            schedule_policy=self.schedule_policy if self.schedule_policy in {"fcfs", "lpm"} else "fcfs",
            overlap=self.overlap,
        )

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def read_facts(info: Mapping[str, Any], loads: Mapping[str, Any], hardware: str | None) -> ServerFacts:
    """From the bodies of /server_info and /v1/loads. `hardware` overrides what the server says of its accelerator.

    Raises KeyError or ValueError for a server that does not tell its KV capacity.
    """
    load: Mapping[str, Any] = (loads.get("loads") or [{}])[0]
    capacity = int(info.get("max_total_num_tokens") or load["max_total_num_tokens"])
    chunk = info.get("chunked_prefill_size")
    accelerator = loads.get("accelerator") or info.get("device") or "unknown"
    return ServerFacts(
        model=str(info.get("served_model_name") or info.get("model_path") or ""),
        hardware=hardware or f"{loads.get('num_accelerators') or 1} x {accelerator}",
        sglang_version=str(info.get("version") or loads.get("version") or ""),
        kv_capacity_tokens=capacity,
        max_prompt_tokens=int(info.get("max_req_input_len") or info.get("context_length") or capacity) - 8,
        chunked_prefill_tokens=int(chunk) if chunk and int(chunk) > 0 else 1 << 30,
        max_prefill_tokens=int(info.get("max_prefill_tokens") or 16_384),
        max_running_requests=int(load.get("max_running_requests") or info.get("max_running_requests") or 256),
        page_size=int(info.get("page_size") or 1),
        schedule_policy=str(info.get("schedule_policy") or "fcfs"),
        overlap=not info.get("disable_overlap_schedule", True),
        prefill_sizes=_prefill_sizes(info),
    )


def _prefill_sizes(info: Mapping[str, Any]) -> tuple[int, ...]:
    """Those of the CUDA graphs for prefill; none where they are switched off."""
    graphs = (info.get("cuda_graph_config") or {}).get("prefill") or {}
    if graphs.get("backend") in {None, "disabled"}:
        return ()
    return tuple(sorted({int(size) for size in graphs.get("bs") or ()}))
