"""Starts one real SGLang server on the CPU, waits until it answers, and stops it with everything it started.

The environment is the one that setup.sh makes. Called by __main__ and tests/contract. Not here: which flags (flavours).
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from workers.sglang.cpu.flavours import Flavour

READY_WITHIN_S = 480.0
"""40 s on two idle cores; three servers that started together on two very busy ones took 260 s."""

MAX_STARTS = 3
LOST_PORT = "EADDRINUSE"
LOOK_EVERY_S = 0.5
PORTS = (15_000, 30_000)
"""Below those that Linux hands to outgoing connections (32,768 on), so that a free port stays free until it is used."""
STOP_WITHIN_S = 5.0
LOG_TAIL_LINES = 25

_CPU_FLAGS = (
    *("--device", "cpu"),
    *("--attention-backend", "torch_native"),  # the others are GPU kernels
    "--disable-overlap-schedule",  # overlaps GPU work with scheduling; there is none
    "--disable-cuda-graph",
    *("--mem-fraction-static", "0.1"),  # of the machine's memory; the tiny cache needs a few megabytes
    "--sleep-on-idle",  # the scheduler otherwise spins on a core
)


class ServerFailed(Exception):
    """The server ended, or was not ready in time. The message holds the end of its log."""


def default_environment() -> Path:
    """Where setup.sh builds unless told otherwise."""
    return Path(__file__).resolve().parents[3] / ".cache" / "sglang-cpu"


class CpuServer:
    """One server process and its children. `start`, then `wait_ready`; `stop` is safe at any time."""

    def __init__(self, flavour: Flavour, environment: Path, log: Path, port: int | None = None) -> None:
        self.flavour = flavour
        self.log = log
        self._environment = environment
        self.port = port or free_ports(1)
        self.first_kv_port = free_ports(flavour.port_count) if flavour.port_count else 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def model_path(self) -> Path:
        """The tiny model's folder, which holds its tokenizer too."""
        return self._environment / "tiny-model"

    def start(self) -> None:
        """Starts the process in a group of its own. Raises ServerFailed where setup.sh has not been run."""
        python = self._environment / "bin" / "python"
        if not (self._environment / ".ready").exists():
            raise ServerFailed(f"there is no SGLang in {self._environment}; run workers/sglang/cpu/setup.sh first")
        argv = [str(python), "-m", "sglang.launch_server", "--model-path", str(self.model_path)]
        argv += ["--host", "127.0.0.1", "--port", str(self.port), *_CPU_FLAGS]
        argv += self.flavour.sglang_flags(self.first_kv_port)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own arguments
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=cpu_environment(os.environ, self.flavour),
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def wait_ready(self, within_s: float = READY_WITHIN_S) -> None:
        """Returns once /health answers 200. Raises ServerFailed.

        SGLang chooses ports for its ranks half a minute before it binds them; a start that lost one is repeated.
        """
        assert self._process is not None
        starts = 1
        deadline_s = time.monotonic() + within_s
        while time.monotonic() < deadline_s:
            if self._process.poll() is not None:
                if starts < MAX_STARTS and LOST_PORT in self.log.read_text(errors="replace"):
                    starts += 1
                    self.stop()
                    self.start()
                    continue
                raise ServerFailed(f"SGLang ended with {self._process.returncode}:\n{self._tail()}")
            if self._answers():
                return
            time.sleep(LOOK_EVERY_S)
        raise ServerFailed(f"SGLang was not ready within {within_s:g} s:\n{self._tail()}")

    def wait(self) -> int:
        """Until the server ends by itself; its exit status."""
        assert self._process is not None
        return self._process.wait()

    def stop(self) -> None:
        """Ends the whole process group, kindly first."""
        if self._process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_WITHIN_S)
        self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:  # noqa: S310 - our own URL
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError, http.client.HTTPException):
            return False

    def _tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([*lines, f"(all of it: {self.log})"])


def cpu_environment(inherited: Mapping[str, str], flavour: Flavour) -> dict[str, str]:
    """The environment variables under which SGLang runs on a CPU."""
    environment = dict(inherited)
    for name in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME"):
        environment.pop(name, None)
    cores = sorted(os.sched_getaffinity(0))
    environment |= {
        "SGLANG_USE_CPU_ENGINE": "1",
        "HF_HUB_OFFLINE": "1",
        # Pages of more than one token are handed out by two small Triton kernels; without a GPU only Triton's
        # interpreter can run them.
        "TRITON_INTERPRET": "1",
        # A model this small is computed faster than two threads agree on who does what.
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        # More ranks than NUMA nodes want to be told their cores.
        "SGLANG_CPU_OMP_THREADS_BIND": "|".join(str(cores[rank % len(cores)]) for rank in range(flavour.dp_size)),
    }
    return environment


def _die_with_parent() -> None:
    """In the child: Linux kills it when whoever started it dies without stopping it. Its own children do the same."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG, <linux/prctl.h>


def free_ports(count: int) -> int:
    """The first of `count` consecutive ports that are free now. Raises OSError where none are found."""
    for _ in range(200):
        first = random.randrange(*PORTS)
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in range(first, first + count):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise OSError(f"found no {count} consecutive free ports")
