"""SGLang's command line is spelled as 0.5.21 spells it, and docker-compose.yml spells it the same."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from workers.sglang.advice import advice
from workers.sglang.command import BadExtraFlag, check_extra, sglang_argv, sglang_environment, shell_line
from workers.spec import WorkerSpec

ROOT = Path(__file__).parents[3]
SPEC = WorkerSpec(name="gpu2-3", model="my model", gpus=(2, 3), host="127.0.0.1", port=30001, tp_size=2,
                  kv_events_port=5558)  # fmt: skip


def test_the_whole_command() -> None:
    assert sglang_argv(SPEC, ["--mem-fraction-static", "0.8"], "py") == [
        *("py", "-m", "sglang.launch_server", "--model-path", "my model", "--host", "127.0.0.1", "--port", "30001"),
        *("--tp-size", "2", "--enable-cache-report", "--enable-metrics", "--kv-events-config"),
        *('{"publisher": "zmq", "endpoint": "tcp://*:5558"}', "--mem-fraction-static", "0.8"),
    ]


def test_the_shell_line_is_that_command_with_its_environment() -> None:
    words = shlex.split(shell_line(SPEC, [], "py"))

    assert words == ["CUDA_DEVICE_ORDER=PCI_BUS_ID", "CUDA_VISIBLE_DEVICES=2,3", *sglang_argv(SPEC, [], "py")]


def test_the_environment_is_the_callers_with_the_gpus() -> None:
    made = sglang_environment(SPEC, {"HF_TOKEN": "t", "CUDA_VISIBLE_DEVICES": "7"})

    assert (made["HF_TOKEN"], made["CUDA_VISIBLE_DEVICES"], made["PYTHONUNBUFFERED"]) == ("t", "2,3", "1")


@pytest.mark.parametrize("flag", ["--port", "--tp-size=4", "--tensor-parallel-size", "--model", "--base-gpu-id"])
def test_flags_that_placement_decides_are_refused(flag: str) -> None:
    with pytest.raises(BadExtraFlag, match=re.escape(flag.partition("=")[0])):
        check_extra(["--trust-remote-code", flag])


def test_the_compose_file_gives_sglang_the_same_flags() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    command = text[text.index("- sglang.launch_server") :].partition("healthcheck")[0]
    in_compose = set(re.findall(r"- (--[a-z-]+)\n", command))
    spec = WorkerSpec(name="gpu0", model="m", gpus=(0,), host="0.0.0.0", port=30000, kv_events_port=5557)
    argv = sglang_argv(spec, [], "python3")

    assert in_compose == {word for word in argv if word.startswith("--")}
    assert json.loads(re.findall(r"- '(\{.*\})'", command)[0]) == json.loads(argv[-1])


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "lower --mem-fraction-static"),
        ("RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.", "raise --mem-fraction"),
        ("OSError: ./x is not a local folder and is not a valid model identifier listed on", "check --model"),
        ("[Errno 98] error while attempting to bind on address ('127.0.0.1', 30000)", "another with --port"),
        ("launch_server.py: error: unrecognized arguments: --nope", "does not know a flag"),
        ("OSError: [Errno 28] No space left on device", "is full"),
    ],
)
def test_known_failures_come_with_what_to_do(line: str, what: str) -> None:
    assert what in (advice(f"    {line}") or "")


def test_an_unknown_failure_comes_with_no_guess() -> None:
    assert advice("    Something else") is None
