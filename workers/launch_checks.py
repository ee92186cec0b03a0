"""What this machine has, and what a plan misses on it: GPUs, their free memory, free ports, the model's folder, SGLang.

Only looks; nothing is started. Called by launch_command. Not here: the plan itself (placement).
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from workers.placement import Plan
from workers.spec import WorkerSpec
from workers.topology import BadTopology, Topology, read_topology, unknown_topology

_QUERY = "--query-gpu=index,name,memory.total,memory.used"
_LOOK_TIMEOUT_S = 60.0
"""nvidia-smi needs seconds on a machine whose driver is not kept loaded."""
_USED_SHARE_ALLOWED = 0.1
"""SGLang plans with a share of the whole memory (--mem-fraction-static) and leaves a tenth or so to others."""
_GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU as nvidia-smi describes it."""

    index: int
    name: str
    memory_bytes: int
    used_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What was found. `problems` says why something was not, in words for the person."""

    gpus: Mapping[int, Gpu] = field(default_factory=dict)
    topology: Topology
    problems: tuple[str, ...] = ()


def look_at_machine(visible: str | None) -> Machine:
    """This machine's GPUs; `visible` is CUDA_VISIBLE_DEVICES, which leaves only some of them when it is set."""
    nvidia_smi = shutil.which("nvidia-smi")
    if nvidia_smi is None:
        problem = "No nvidia-smi: there is no NVIDIA driver here. `trieway up` runs simulated workers instead."
        return Machine(topology=unknown_topology(()), problems=(problem,))
    listed = _run([nvidia_smi, _QUERY, "--format=csv,noheader,nounits"])
    if listed is None:
        problem = "nvidia-smi fails: run it by hand to see why; the driver may need a restart."
        return Machine(topology=unknown_topology(()), problems=(problem,))
    gpus = {gpu.index: gpu for gpu in map(_read_gpu, listed.strip().splitlines())}
    problems = []
    if visible is not None:
        if any(not word.strip().isdigit() for word in visible.split(",") if word.strip()):
            problems.append(f"CUDA_VISIBLE_DEVICES={visible} does not name GPUs by number: unset it and use --gpus.")
        else:
            wanted = {int(word) for word in visible.split(",") if word.strip()}
            gpus = {index: gpu for index, gpu in gpus.items() if index in wanted}
    if not gpus:
        problems.append("nvidia-smi lists no GPU that may be used.")
    return Machine(gpus=gpus, topology=_topology(nvidia_smi, gpus), problems=tuple(problems))


def missing(plan: Plan, machine: Machine, python: str) -> list[str]:
    """What keeps `plan` from running here, each with what to do; empty when nothing does."""
    found = list(machine.problems)
    for spec in plan.workers:
        found += [text for gpu in spec.gpus if (text := _gpu_problem(gpu, machine)) is not None]
        found += [
            f"Port {port} is taken (wanted for {spec.name}): choose others with --port or --kv-events-port."
            for port in spec.ports
            if not _is_free(spec.host if port == spec.port else "", port)
        ]
    found += _model_problems(plan.workers[0], machine)
    if not _has_sglang(python):
        found.append(
            f"{python} has no SGLang: `pip install sglang`, or name a Python that has it with --python. "
            "`docker compose --profile gpu up router-gpu` needs none."
        )
    return found


def _topology(nvidia_smi: str, gpus: Mapping[int, Gpu]) -> Topology:
    text = _run([nvidia_smi, "topo", "-m"]) if len(gpus) > 1 else None
    try:
        whole = read_topology(text) if text is not None else unknown_topology(gpus)
    except BadTopology:
        whole = unknown_topology(gpus)
    return Topology(gpus=tuple(sorted(gpus)), links=whole.links)


def _read_gpu(line: str) -> Gpu:
    index, rest = line.split(",", 1)
    name, total, used = (word.strip() for word in rest.rsplit(",", 2))
    return Gpu(index=int(index), name=name, memory_bytes=_mebibytes(total), used_bytes=_mebibytes(used))


def _mebibytes(word: str) -> int:
    return int(word) * 2**20 if word.isdigit() else 0  # "[N/A]" where memory is shared with the host


def _gpu_problem(index: int, machine: Machine) -> str | None:
    gpu = machine.gpus.get(index)
    if gpu is None:
        return None if machine.problems else f"There is no GPU {index}: change --gpus."
    if gpu.used_bytes > _USED_SHARE_ALLOWED * gpu.memory_bytes > 0:
        used = f"{gpu.used_bytes / _GIB:.0f} of {gpu.memory_bytes / _GIB:.0f} GiB"
        return f"GPU {index} ({gpu.name}) has {used} in use: end what uses it, or leave it out with --gpus."
    return None


def _model_problems(spec: WorkerSpec, machine: Machine) -> list[str]:
    """About a model given as a folder; a name on the hub is the server's to find."""
    if not spec.model.startswith(("/", "./", "../", "~")):
        return []
    folder = Path(spec.model).expanduser()
    if not (folder / "config.json").is_file():
        what = "has no config.json" if folder.is_dir() else "does not exist"
        return [f"The model's folder {spec.model} {what}: check --model."]
    weights_bytes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    memory_bytes = [machine.gpus[gpu].memory_bytes for gpu in spec.gpus[: spec.tp_size] if gpu in machine.gpus]
    if memory_bytes and weights_bytes > sum(memory_bytes):
        sizes = f"{weights_bytes / _GIB:.0f} GiB, a replica's GPUs have {sum(memory_bytes) / _GIB:.0f}"
        return [f"The weights take {sizes}: spread them over more GPUs with --tp."]
    return []


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _has_sglang(python: str) -> bool:
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('sglang') is None)"
    return _run([python, "-c", look]) is not None


def _run(argv: Sequence[str]) -> str | None:
    """What the program printed; None when it is not there, fails or takes too long."""
    try:
        done = subprocess.run(  # noqa: S603  fixed programs
            list(argv), capture_output=True, text=True, timeout=_LOOK_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
