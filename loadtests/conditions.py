"""Under which conditions a scenario ran: time, command, machine, versions, and what real servers say of themselves.

Called by scenario_command.py.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx
import msgspec

from loadtests.scenario import Scenario
from loadtests.scenario_outcome import Conditions
from workers.simulated.cost_model import H200_QWEN3_8B

_SERVER_KEYS = ("version", "model_path", "tp_size", "dp_size", "attention_backend", "device", "max_total_num_tokens")
"""Of SGLang's /server_info, what changes the figures."""


def conditions(scenario: Scenario, *, virtual: bool) -> Conditions:
    """Of a run that starts now. Asks real workers who they are; one that does not say is just named."""
    return Conditions(
        started_at=datetime.now(tz=UTC).isoformat(timespec="seconds"),
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        machine=f"{platform.system()} {platform.release()}, {os.cpu_count()} x {_processor()}",
        versions=f"Python {platform.python_version()}, trieway {_version()}",
        fleet=_fleet(scenario),
        virtual=virtual,
    )


def _fleet(scenario: Scenario) -> Sequence[str]:
    spec = scenario.fleet
    if spec.endpoints:
        return [f"{name}: {url}" for name, url in spec.endpoints.items()]
    if spec.worker_urls:
        return [f"{url}: {_server(url)}" for url in spec.worker_urls]
    speed = f", {spec.speed:g} times as fast" if spec.speed != 1 else ""
    model = f"{H200_QWEN3_8B.model} on {H200_QWEN3_8B.hardware}"
    return [f"{spec.workers} simulated workers with the timing of {model}{speed}"]


def _server(url: str) -> str:
    try:  # one that just came up answers late
        response = httpx.get(f"{url.rstrip('/')}/server_info", timeout=20, trust_env=False)
        said = msgspec.json.decode(response.content, type=dict[str, object])
    except (httpx.HTTPError, msgspec.DecodeError):
        return "did not say what it is"
    return ", ".join(f"{key} {said[key]}" for key in _SERVER_KEYS if said.get(key) is not None)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")


def _version() -> str:
    try:
        return version("trieway")
    except PackageNotFoundError:
        return "from source"
