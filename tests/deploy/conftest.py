"""docker-compose.yml and the Dockerfile as data, and a way to run a service's exact command without Docker."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ports import free_port

ROOT = Path(__file__).parents[2]
HEALTHY_S = 90.0
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}|\$\$")

Service = dict[str, Any]


def interpolated(value: Any, environment: Mapping[str, str]) -> Any:
    """`value` with ${NAME:-default} replaced as Compose does it."""
    if isinstance(value, dict):
        return {key: interpolated(each, environment) for key, each in value.items()}
    if isinstance(value, list):
        return [interpolated(each, environment) for each in value]
    if not isinstance(value, str):
        return value
    return _VARIABLE.sub(
        lambda found: "$" if found.group() == "$$" else environment.get(found[1]) or found[2] or "", value
    )


@pytest.fixture(scope="session")
def load_yaml() -> Callable[[Path], Any]:
    """Reads a YAML file into plain types."""
    return lambda path: json.loads(json.dumps(YAML(typ="safe").load(path.read_text("utf-8"))))


@pytest.fixture(scope="session")
def compose_as_written(load_yaml: Callable[[Path], Any]) -> Any:
    """As Compose's schema sees it: merged, not interpolated."""
    return load_yaml(ROOT / "docker-compose.yml")


@pytest.fixture(scope="session")
def services(compose_as_written: Any) -> dict[str, Service]:
    """All services, interpolated with an empty environment."""
    found: dict[str, Service] = interpolated(compose_as_written, {})["services"]
    return found


@pytest.fixture(scope="session")
def entrypoints() -> dict[str, list[str]]:
    """The ENTRYPOINT of each target of deploy/Dockerfile."""
    text = (ROOT / "deploy/Dockerfile").read_text("utf-8")
    stages = re.split(r"^FROM \S+ AS (\S+)$", text, flags=re.MULTILINE)[1:]
    found = {}
    for target, body in zip(stages[::2], stages[1::2], strict=True):
        for line in re.findall(r"^ENTRYPOINT (\[.*\])$", body, flags=re.MULTILINE):
            found[target] = json.loads(line)
    return found


class Outside:
    """Runs services as plain processes: each name becomes 127.0.0.1, each (service, port) a port that is free here."""

    def __init__(
        self, services: dict[str, Service], entrypoints: dict[str, list[str]], logs: Path, within: Sequence[str] = ()
    ) -> None:
        self._within = within  # a program that runs others, such as unshare
        self._services = services
        self._entrypoints = entrypoints
        self._logs = logs
        self._ports: dict[tuple[str, int], int] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def port(self, service: str, inside: int) -> int:
        if (service, inside) not in self._ports:
            self._ports[service, inside] = free_port()
        return self._ports[service, inside]

    def url(self, service: str, inside: int) -> str:
        return f"http://127.0.0.1:{self.port(service, inside)}"

    def command(self, service: str) -> list[str]:
        """The container's command line with names, addresses and paths of this machine."""
        about = self._services[service]
        words = [*self._entrypoints[about["build"]["target"]], *about["command"]]
        here = [self._here(service, word, before) for word, before in zip(words, ["", *words], strict=False)]
        programs = {"python": sys.executable, "locust": str(Path(sys.executable).parent / "locust")}
        return [programs[here[0]], *here[1:]]

    def _here(self, service: str, word: str, before: str) -> str:
        if word == "/app/locustfile.py":
            return str(ROOT / "loadtests/locustfile.py")
        if before == "--port":
            return str(self.port(service, int(word)))
        if found := re.fullmatch(r"--port=(\d+)", word):
            return f"--port={self.port(service, int(found[1]))}"
        word = re.sub(r"http://([\w-]+):(\d+)", lambda found: self.url(found[1], int(found[2])), word)
        if found := re.fullmatch(r"(--[\w-]+=)([\w-]+)", word):
            word = f"{found[1]}127.0.0.1" if found[2] in self._services else word
        return word.replace("0.0.0.0", "127.0.0.1")

    def start(self, service: str, *extra: str) -> None:
        """Starts it when all that it depends on is healthy. `extra` are flags that only this machine needs."""
        for other, how in self._services[service].get("depends_on", {}).items():
            assert how["condition"] == "service_healthy"
            self.wait_healthy(other)
        environment = {**os.environ, **self._services[service].get("environment", {})}
        with (self._logs / f"{service}.log").open("wb") as log:
            self._running[service] = subprocess.Popen(
                [*self._within, *self.command(service), *extra], cwd=self._logs, env=environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def healthy(self, service: str) -> bool:
        """Whether its health check, run as written, succeeds."""
        kind, program, script, port, path = self._services[service]["healthcheck"]["test"]
        assert (kind, program, script) == ("CMD", "python", "/usr/local/bin/probe.py")
        check = [sys.executable, str(ROOT / "deploy/probe.py"), str(self.port(service, int(port))), path]
        return subprocess.run(check, capture_output=True, check=False, timeout=30).returncode == 0

    def wait_healthy(self, service: str) -> None:
        self.wait(service, lambda: self.healthy(service), "healthy")

    def wait(self, service: str, until: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + HEALTHY_S
        while not until():
            log = (self._logs / f"{service}.log").read_text(errors="replace")[-2000:]
            assert self._running[service].poll() is None, f"{service} ended:\n{log}"
            assert time.monotonic() < deadline, f"{service} was not {what} within {HEALTHY_S:g} s:\n{log}"
            time.sleep(0.1)

    def stop(self) -> None:
        for process in reversed(self._running.values()):
            for how in (signal.SIGTERM, signal.SIGKILL):
                if process.poll() is None:
                    os.killpg(process.pid, how)
                try:
                    process.wait(15)
                    break
                except subprocess.TimeoutExpired:
                    continue


@pytest.fixture(scope="session")
def outside_type() -> type[Outside]:
    return Outside


@pytest.fixture
def outside(services: dict[str, Service], entrypoints: dict[str, list[str]], tmp_path: Path) -> Iterator[Outside]:
    running = Outside(services, entrypoints, tmp_path)
    yield running
    running.stop()
