"""WorkerSpec to SGLang's command line and environment. The only file of `trieway workers launch` that spells them.

As of SGLang 0.5.21; 0.5.17 takes the same. Called by launch. Not here: which GPUs (placement), running it (process).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence

from workers.spec import WorkerSpec

MODULE = "sglang.launch_server"

_OURS = {
    **dict.fromkeys(("--model-path", "--model"), "--model"),
    **dict.fromkeys(("--tp-size", "--tensor-parallel-size", "--tp"), "--tp"),
    **dict.fromkeys(("--dp-size", "--data-parallel-size", "--dp"), "--dp"),
    "--host": "--host",
    "--port": "--port",
    "--kv-events-config": "--kv-events-port",
    "--base-gpu-id": "--gpus",
    "--gpu-id-step": "--gpus",
}
"""SGLang's flags that placement decides, and our option that sets each."""


class BadExtraFlag(Exception):
    """A flag for SGLang that placement decides; the message names our option for it."""


def sglang_argv(spec: WorkerSpec, extra: Sequence[str], python: str) -> list[str]:
    """The command that serves `spec`, with what a router wants: cached tokens in usage, metrics, KV events.

    `extra` goes at the end as it is, so that it can override what it may. Raises BadExtraFlag.
    """
    check_extra(extra)
    argv = [python, "-m", MODULE, "--model-path", spec.model, "--host", spec.host, "--port", str(spec.port)]
    if spec.tp_size > 1:
        argv += ["--tp-size", str(spec.tp_size)]
    if spec.dp_size > 1:
        argv += ["--dp-size", str(spec.dp_size)]
    argv += ["--enable-cache-report", "--enable-metrics"]
    if spec.kv_events_port is not None:
        # With a plain address SGLang connects; only a wildcard makes it bind (seen on 0.5.21).
        events = {"publisher": "zmq", "endpoint": f"tcp://*:{spec.kv_events_port}"}
        argv += ["--kv-events-config", json.dumps(events)]
    return [*argv, *extra]


def check_extra(extra: Sequence[str]) -> None:
    """Raises BadExtraFlag for the first of `extra` that is ours to set."""
    for word in extra:
        flag = word.partition("=")[0]
        if flag in _OURS:
            raise BadExtraFlag(f"{flag} after -- would undo the plan; use {_OURS[flag]} of trieway workers launch.")


def sglang_environment(spec: WorkerSpec, inherited: Mapping[str, str]) -> dict[str, str]:
    """`inherited` with the GPUs of `spec`, numbered as nvidia-smi does, and output that reaches the log at once."""
    return {**inherited, **_own_environment(spec), "PYTHONUNBUFFERED": "1"}


def shell_line(spec: WorkerSpec, extra: Sequence[str], python: str) -> str:
    """The same as one line for a shell, to read and to paste."""
    environment = [f"{name}={value}" for name, value in _own_environment(spec).items()]
    return " ".join([*environment, shlex.join(sglang_argv(spec, extra, python))])


def _own_environment(spec: WorkerSpec) -> dict[str, str]:
    return {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # CUDA's own order, fastest first, is not nvidia-smi's
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, spec.gpus)),
    }
