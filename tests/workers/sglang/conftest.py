"""A machine that has GPUs and SGLang, as far as `trieway workers launch` can tell: a fake nvidia-smi, and a module
`sglang.launch_server` that takes SGLang's flags and then is our simulated server, or fails as it was told to.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ports import free_ports

ROOT = Path(__file__).parents[3]
TOPOLOGIES = Path(__file__).parents[1] / "topologies"
WAIT_S = 60.0

NVIDIA_SMI = """\
#!{python}
import sys
if sys.argv[1:3] == ["topo", "-m"]:
    print(open({topology!r}).read())
elif sys.argv[1:] == ["--query-gpu=index,name,memory.total,memory.used", "--format=csv,noheader,nounits"]:
    for i in range({count}):
        print(f"{{i}}, NVIDIA H200, 143771, {{ {used!r}.get(i, 4) }}")
else:
    sys.exit(f"unexpected arguments {{sys.argv}}")
"""

LAUNCH_SERVER = '''\
"""Takes the flags of SGLang 0.5.21 that we use; `--fake DIR` names a folder of orders, read at each start."""
import argparse, os, pathlib, sys
flags = argparse.ArgumentParser(allow_abbrev=False)
flags.add_argument("--model-path", required=True)
flags.add_argument("--host", required=True)
flags.add_argument("--port", type=int, required=True)
flags.add_argument("--tp-size", type=int, default=1)
flags.add_argument("--dp-size", default="1")
flags.add_argument("--enable-cache-report", action="store_true")
flags.add_argument("--enable-metrics", action="store_true")
flags.add_argument("--kv-events-config")
flags.add_argument("--fake", required=True)
given = flags.parse_args()
orders = pathlib.Path(given.fake)
with (orders / f"starts-{given.port}").open("a") as log:
    log.write(f"{os.getpid()} {os.environ['CUDA_DEVICE_ORDER']} {os.environ['CUDA_VISIBLE_DEVICES']}\\n")
print("Load weight begin.", flush=True)
if (orders / f"fail-{given.port}").exists():
    print("RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.")
    sys.exit(3)
argv = [sys.executable, "-m", "workers", "simulate", "--host", given.host, "--port", str(given.port)]
argv += ["--model", given.model_path, "--dp-size", given.dp_size, "--speed", "100"]
argv += ["--enable-cache-report"] if given.enable_cache_report else ["--no-cache-report"]
argv += ["--enable-metrics"] if given.enable_metrics else ["--no-metrics"]
argv += ["--kv-events-config", given.kv_events_config] if given.kv_events_config else []
os.execv(sys.executable, argv)
'''


class FakeMachine:
    """Where the fakes are, and how the launcher is started among them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.orders = folder / "orders"
        self.logs = folder / "logs"
        self.orders.mkdir()
        (folder / "bin").mkdir()
        (folder / "site/sglang").mkdir(parents=True)
        (folder / "site/sglang/__init__.py").write_text("")
        (folder / "site/sglang/launch_server.py").write_text(LAUNCH_SERVER)
        self.has_gpus(2, "nvswitch_4")
        self._started: list[subprocess.Popen[str]] = []

    def has_gpus(self, count: int, topology: str, used_mib: dict[int, int] | None = None) -> None:
        program = self.folder / "bin/nvidia-smi"
        program.write_text(
            NVIDIA_SMI.format(
                python=sys.executable, topology=str(TOPOLOGIES / f"{topology}.txt"), count=count, used=used_mib or {}
            )
        )
        program.chmod(0o755)

    def lacks_sglang(self) -> None:
        (self.folder / "site/sglang/launch_server.py").unlink()
        (self.folder / "site/sglang/__init__.py").unlink()
        (self.folder / "site/sglang").rmdir()

    def environment(self) -> dict[str, str]:
        """As a shell on this machine has it."""
        paths = [str(self.folder / "site"), str(ROOT)]
        inherited = {k: v for k, v in os.environ.items() if k not in ("CUDA_VISIBLE_DEVICES", "TRIEWAY_SGLANG_PYTHON")}
        return {
            **inherited,
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(paths),
        }

    def argv(self, *options: str, extra: tuple[str, ...] = ()) -> list[str]:
        flags = ["--model", "tiny", "--log-dir", str(self.logs), *options, "--", "--fake", str(self.orders), *extra]
        return [sys.executable, "-m", "workers", "launch", *flags]

    def run(self, *options: str, extra: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """The launcher until it ends by itself."""
        return subprocess.run(
            self.argv(*options, extra=extra), env=self.environment(), capture_output=True, text=True, timeout=WAIT_S,
            check=False, cwd=self.folder,
        )  # fmt: skip

    def start(self, *options: str) -> subprocess.Popen[str]:
        """The launcher, running; stopped after the test."""
        with (self.folder / "out").open("w") as out:
            process = subprocess.Popen(
                self.argv(*options), env=self.environment(), stdout=out, stderr=subprocess.STDOUT, text=True,
                cwd=self.folder,
            )  # fmt: skip
        self._started.append(process)
        return process

    def output(self) -> str:
        return (self.folder / "out").read_text()

    def starts(self, port: int) -> list[list[str]]:
        """For each start of the server on this port: its process id, CUDA_DEVICE_ORDER and CUDA_VISIBLE_DEVICES."""
        file = self.orders / f"starts-{port}"
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

    def until(self, what: Callable[[], bool], said: str) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while not what():
            assert time.monotonic() < deadline_s, f"not within {WAIT_S:g} s: {said}\n{self.output()}"
            time.sleep(0.05)

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.terminate()
                process.wait(WAIT_S)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[FakeMachine]:
    made = FakeMachine(tmp_path)
    yield made
    made.end()


@pytest.fixture
def ports() -> tuple[int, int]:
    """The first of two free HTTP ports in a row, and the first of four for KV events."""
    return free_ports(2)[0], free_ports(4)[0]
