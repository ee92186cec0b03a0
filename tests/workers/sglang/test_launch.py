"""`trieway workers launch` as a person has it, among fakes: real processes, real ports, real health checks."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

import httpx
import pytest

from pids import alive

pytestmark = pytest.mark.slow


def options(ports: tuple[int, int], *more: str) -> list[str]:
    return ["--port", str(ports[0]), "--kv-events-port", str(ports[1]), *more]


@pytest.fixture
def running(machine: Any, ports: tuple[int, int]) -> Any:
    """The launcher with two servers that are ready."""
    process = machine.start(*options(ports))
    machine.until(lambda: "Ready: 2 SGLang servers" in machine.output() or process.poll() is not None, "both ready")
    assert process.poll() is None, machine.output()
    return process


def test_each_gpu_gets_a_server_with_the_flags_that_a_router_wants(
    machine: Any, ports: tuple[int, int], running: Any
) -> None:
    urls = [f"http://127.0.0.1:{ports[0] + i}" for i in range(2)]
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "word " * 50}], "max_tokens": 2}
    for _ in range(2):
        usage = httpx.post(f"{urls[0]}/v1/chat/completions", json=chat, timeout=30).json()["usage"]
    info = httpx.get(f"{urls[1]}/server_info", timeout=30).json()

    assert [starts[0][1:] for starts in map(machine.starts, (ports[0], ports[0] + 1))] == [
        ["PCI_BUS_ID", "0"],
        ["PCI_BUS_ID", "1"],
    ]
    assert usage["prompt_tokens_details"]["cached_tokens"] > 0
    assert "sglang:num_running_reqs" in httpx.get(f"{urls[0]}/metrics", timeout=30).text
    assert info["kv_events"]["endpoint_port_base"] == ports[1] + 1
    assert f"trieway serve --worker gpu0={urls[0]} --worker gpu1={urls[1]}\n" in machine.output()


def test_ctrl_c_stops_the_servers_and_all_that_they_started(
    machine: Any, ports: tuple[int, int], running: Any
) -> None:
    pids = [int(machine.starts(port)[0][0]) for port in (ports[0], ports[0] + 1)]
    running.send_signal(signal.SIGINT)

    assert running.wait(30) == 0
    assert machine.output().endswith("Stopping ...\nAll stopped.\n")
    assert not any(map(alive, pids))


def test_servers_do_not_outlive_a_launcher_that_was_killed(
    machine: Any, ports: tuple[int, int], running: Any
) -> None:
    pids = [int(machine.starts(port)[0][0]) for port in (ports[0], ports[0] + 1)]
    running.kill()

    machine.until(lambda: not any(map(alive, pids)), "the servers ended")


def test_a_server_that_crashes_is_started_again_and_the_other_goes_on(
    machine: Any, ports: tuple[int, int], running: Any
) -> None:
    os.kill(int(machine.starts(ports[0])[0][0]), signal.SIGKILL)
    machine.until(lambda: machine.output().count("gpu0: ready after") == 2, "gpu0 ready again")

    assert "gpu0 ended with signal SIGKILL. Starting it again in 1 s." in machine.output()
    assert httpx.get(f"http://127.0.0.1:{ports[0]}/health", timeout=30).status_code == 200
    assert len(machine.starts(ports[0])) == 2
    assert len(machine.starts(ports[0] + 1)) == 1


def test_one_that_crashes_too_often_is_given_up_with_its_last_lines_and_the_other_goes_on(
    machine: Any, ports: tuple[int, int]
) -> None:
    process = machine.start(*options(ports, "--restarts", "1"))
    machine.until(lambda: "Ready: 2 SGLang servers" in machine.output(), "both ready")
    (machine.orders / f"fail-{ports[0]}").touch()
    os.kill(int(machine.starts(ports[0])[0][0]), signal.SIGKILL)
    machine.until(lambda: "Its last lines:" in machine.output(), "given up")

    assert "gpu0 ended with status 3.\nIts last lines:\n" in machine.output()
    assert len(machine.starts(ports[0])) == 2
    assert process.poll() is None
    assert httpx.get(f"http://127.0.0.1:{ports[0] + 1}/health", timeout=30).status_code == 200


def test_a_start_that_fails_shows_why_and_what_to_do_and_leaves_nothing(machine: Any, ports: tuple[int, int]) -> None:
    (machine.orders / f"fail-{ports[0] + 1}").touch()
    done = machine.run(*options(ports))

    assert done.returncode == 1
    assert "gpu1 ended with status 3 before it was ready.\nIts last lines:\n    Load weight begin.\n" in done.stderr
    assert "raise --mem-fraction-static, or spread the model with --tp." in done.stderr
    assert str(machine.logs / "gpu1.log") in done.stderr
    assert done.stdout.endswith("All stopped.\n")
    assert not [start for start in machine.starts(ports[0]) if alive(int(start[0]))]  # it may not have begun yet


def test_a_server_that_is_never_ready_is_given_up_in_time(machine: Any, ports: tuple[int, int]) -> None:
    (machine.folder / "site/sglang/launch_server.py").write_text("import time\nprint('Loading')\ntime.sleep(600)\n")
    done = machine.run(*options(ports, "--ready-within", "2", "--gpus", "0"))

    assert done.returncode == 1
    assert "gpu0 was not ready within 2 s.\nIts last lines:\n    Loading\n" in done.stderr


def test_tensor_and_data_parallel_servers_get_their_gpus_and_flags(machine: Any, ports: tuple[int, int]) -> None:
    machine.has_gpus(4, "crossed_pairs_4")
    machine.start(*options(ports, "--tp", "2", "--dp", "2"))
    machine.until(lambda: "Ready: 1 SGLang server." in machine.output(), "ready")
    info = httpx.get(f"http://127.0.0.1:{ports[0]}/server_info", timeout=30).json()

    assert machine.starts(ports[0])[0][1:] == ["PCI_BUS_ID", "0,2,1,3"]
    assert info["dp_size"] == 2


def test_a_dry_run_prints_plan_and_commands_and_starts_nothing(machine: Any, ports: tuple[int, int]) -> None:
    done = machine.run(*options(ports, "--dry-run"))

    assert done.returncode == 0
    assert done.stderr == ""
    assert "2 SGLang servers of tiny, tp 1, dp 1:" in done.stdout
    assert "gpu0    0 NVIDIA H200" in done.stdout
    assert f"CUDA_VISIBLE_DEVICES=1 {machine.argv()[0]} -m sglang.launch_server --model-path tiny" in done.stdout
    assert machine.starts(ports[0]) == []


def test_all_that_is_missing_is_said_at_once(machine: Any, ports: tuple[int, int]) -> None:
    machine.has_gpus(2, "nvswitch_4", {1: 90_000})
    machine.lacks_sglang()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports[0]))
        taken.listen()
        done = machine.run(*options(ports, "--model", "/nowhere/model"))

    assert done.returncode == 1
    assert "GPU 1 (NVIDIA H200) has 88 of 140 GiB in use: end what uses it" in done.stderr
    assert f"Port {ports[0]} is taken (wanted for gpu0): choose others with --port" in done.stderr
    assert "The model's folder /nowhere/model does not exist: check --model." in done.stderr
    assert "has no SGLang: `pip install sglang`, or name a Python that has it with --python." in done.stderr
    assert machine.starts(ports[0]) == []


def test_weights_that_do_not_fit_a_replica_are_told_before_they_are_loaded(
    machine: Any, ports: tuple[int, int]
) -> None:
    model = machine.folder / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    with (model / "model.safetensors").open("wb") as weights:
        weights.truncate(200 * 2**30)  # sparse
    done = machine.run(*options(ports, "--model", str(model), "--dry-run"))
    halved = machine.run(*options(ports, "--model", str(model), "--dry-run", "--tp", "2"))

    assert "The weights take 200 GiB, a replica's GPUs have 140: spread them over more GPUs with --tp." in done.stderr
    assert halved.stderr == ""


def test_without_a_driver_the_answer_is_what_to_do(machine: Any) -> None:
    (machine.folder / "bin/nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    done = machine.run()

    assert done.returncode == 1
    assert done.stderr.startswith("Error: nvidia-smi fails: run it by hand to see why")


def test_cuda_visible_devices_leaves_only_its_gpus(
    machine: Any, ports: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**machine.environment(), "CUDA_VISIBLE_DEVICES": "1"}
    monkeypatch.setattr(machine, "environment", lambda: environment)
    done = machine.run(*options(ports, "--dry-run"))

    assert "1 SGLang server of tiny" in done.stdout
    assert "CUDA_VISIBLE_DEVICES=1 " in done.stdout


@pytest.mark.parametrize(
    ("given", "extra", "why"),
    [
        (["--gpus", "0,7"], (), "This machine has no GPU 7; it has 0, 1. Change --gpus."),
        (["--gpus", "1-"], (), "'1-' is no list of GPUs"),
        (["--tp", "4"], (), "needs 4 GPUs; 2 may be used"),
        ([], ("--tp-size=2",), "--tp-size after -- would undo the plan; use --tp of trieway workers launch."),
    ],
)
def test_a_wish_that_cannot_be_met_is_one_error(
    machine: Any, given: list[str], extra: tuple[str, ...], why: str
) -> None:
    done = machine.run(*given, extra=extra)

    assert done.returncode in (1, 2)
    assert why in done.stderr
    assert "Traceback" not in done.stderr
