"""Every knob of a simulated worker, with its default and the reason for it. Parsed by cli.py, read by worker.py.

`validated` refuses what cannot work, with one sentence that names the option.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.simulated.cost_file import read_cost_model
from workers.simulated.cost_model import H200_QWEN3_8B, CostModel
from workers.simulated.errors import BadOption
from workers.simulated.faults import FaultSchedule, read_faults
from workers.simulated.kv_events import KvEventsConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A simulated worker. Defaults are an H200 with a model of Qwen3-8B's shape, where nothing else is said.

    kv_capacity_tokens: SGLang 0.5.17 gave 699,103 tokens there at --mem-fraction-static 0.8 (measured).
    max_running_requests: SGLang derives it from capacity and caps it at 4096; 256 is the largest CUDA graph batch.
    chunked_prefill_tokens: SGLang's default for GPUs of 140 GB.
    overlap: plan each step while the one before it runs; SGLang does unless told --disable-overlap-schedule.
    context_length: Qwen3-8B with YaRN.
    speed: modelled seconds per second of wall time.
    natural_output_tokens: mean length of an answer whose request sets no limit.
    lora: accept LoRA adapters, each with a cache namespace of its own; every name is taken for a loaded one.
    stop_early: answers may end at their natural length before the limit that the request set.
    """

    host: str = "127.0.0.1"
    port: int = 30000
    model: str = "simulated"
    kv_capacity_tokens: int = 699_103
    page_size: int = 1
    max_running_requests: int = 256
    chunked_prefill_tokens: int = 8192
    overlap: bool = True
    schedule_policy: str = "fcfs"
    context_length: int = 131_072
    cost_model: CostModel = H200_QWEN3_8B
    speed: float = 1.0
    seed: int = 0
    api_key: str | None = None
    admin_api_key: str | None = None
    cache_report: bool = True
    metrics: bool = True
    dp_size: int = 1
    kv_events: KvEventsConfig | None = None
    natural_output_tokens: int = 256
    stop_early: bool = False
    lora: bool = False

    def validated(self) -> Options:
        """Itself. Raises BadOption."""
        positive = {
            "kv-capacity-tokens": self.kv_capacity_tokens,
            "page-size": self.page_size,
            "max-running-requests": self.max_running_requests,
            "chunked-prefill-tokens": self.chunked_prefill_tokens,
            "context-length": self.context_length,
            "dp-size": self.dp_size,
            "natural-output-tokens": self.natural_output_tokens,
        }
        for name, value in positive.items():
            if value < 1:
                raise BadOption(f"--{name} must be at least 1, got {value}")
        if not 0 < self.speed <= 10_000:
            raise BadOption(f"--speed must be above 0 and at most 10000, got {self.speed:g}")
        if not 0 <= self.port <= 65_535:
            raise BadOption(f"--port must be between 0 and 65535, got {self.port}")
        if not self.model:
            raise BadOption("--model must not be empty")
        if self.kv_capacity_tokens < self.page_size:
            raise BadOption("--kv-capacity-tokens must hold at least one page")
        return self

    def summary(self) -> str:
        """What a reader of one log line wants to know."""
        ranks = "" if self.dp_size == 1 else f"{self.dp_size} ranks, "
        return f"{ranks}{self.kv_capacity_tokens} KV tokens, page size {self.page_size}, speed {self.speed:g}"

    @property
    def max_request_tokens(self) -> int:
        """Longest prompt and answer together, as SGLang bounds it: the context, or all of the KV cache."""
        pages = self.kv_capacity_tokens // self.page_size
        return min(self.context_length, pages * self.page_size) - 1

    @property
    def max_prompt_tokens(self) -> int:
        """Prompts of this length or more are refused (SGLang: max_req_input_len = max_req_len - 5)."""
        return self.max_request_tokens - 5

    def _prefill_graphs(self) -> dict[str, Any]:
        """As SGLang describes them: token counts for which a prefill step's work is recorded."""
        sizes = list(self.cost_model.prefill_sizes)
        return {"backend": "breakable" if sizes else "disabled", "max_bs": max(sizes, default=0), "bs": sizes}

    def as_server_args(self) -> dict[str, Any]:
        """The options under the names that SGLang's /server_info uses."""
        return {
            "model_path": self.model,
            "tokenizer_path": self.model,
            "served_model_name": self.model,
            "host": self.host,
            "port": self.port,
            "page_size": self.page_size,
            "max_running_requests": self.max_running_requests,
            "max_total_tokens": self.kv_capacity_tokens,
            "chunked_prefill_size": self.chunked_prefill_tokens,
            "schedule_policy": self.schedule_policy,
            "context_length": self.context_length,
            "dp_size": self.dp_size,
            "tp_size": 1,
            "random_seed": self.seed,
            "enable_cache_report": self.cache_report,
            "enable_metrics": self.metrics,
            "disaggregation_mode": "null",
            "disable_radix_cache": False,
            "disable_overlap_schedule": not self.overlap,
            "cuda_graph_config": {"prefill": self._prefill_graphs()},
            "max_prefill_tokens": 16_384,
            "load_balance_method": "round_robin",
            "radix_eviction_policy": "lru",
        }


DEFAULTS = Options()


def read_options(given: Mapping[str, Any]) -> tuple[Options, FaultSchedule]:
    """Options and faults from the command line's values, files read. Raises BadOption."""
    values = dict(given)
    faults_file: Path | None = values.pop("faults")
    kv_events: str | None = values.pop("kv_events_config")
    cost_file: Path | None = values.pop("cost_model")
    if cost_file is not None:
        values["cost_model"] = read_cost_model(cost_file)
    schedule = read_faults(faults_file) if faults_file is not None else FaultSchedule()
    config = KvEventsConfig.parse(kv_events) if kv_events is not None else None
    return Options(**values, kv_events=config).validated(), schedule
