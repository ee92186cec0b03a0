"""Every command of docs/deployment.md is one: our programs take its flags, Compose has its services and variables."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/deployment.md").read_text("utf-8")
COMMANDS = [line.strip() for line in TEXT.splitlines() if line.startswith("    ")]
TRIEWAY = [command for command in COMMANDS if command.startswith("trieway ")]
COMPOSE = [command for command in COMMANDS if "docker compose " in command]


def test_every_command_is_looked_at() -> None:
    assert len(TRIEWAY) >= 8
    assert len(COMPOSE) >= 5
    assert set(COMMANDS) - set(TRIEWAY) - set(COMPOSE) == {"pytest tests/deploy"}


@pytest.mark.parametrize("command", TRIEWAY)
def test_trieway_knows_it(command: str) -> None:
    """Dry runs run; of the others all flags are read, and then their help is shown."""
    words = shlex.split(command)[1:]
    if "--dry-run" not in words:
        words.insert(words.index("--") if "--" in words else len(words), "--help")
    argv = [str(Path(sys.executable).parent / "trieway"), *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMPOSE)
def test_compose_has_its_profiles_services_and_variables(command: str, services: dict[str, Any]) -> None:
    words = shlex.split(command)
    start = words.index("docker")
    profiles = {after for word, after in pairwise(words) if word == "--profile"}
    named = words[words.index("up") + 1 :]
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")

    assert profiles <= {profile for service in services.values() for profile in service.get("profiles", [])}
    assert set(named) <= set(services)
    assert all(profiles & set(services[name].get("profiles", [])) for name in named)
    assert all(f"${{{word.partition('=')[0]}:-" in compose for word in words[:start])


def test_the_table_of_settings_is_complete_and_true(services: dict[str, Any]) -> None:
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")
    used = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", compose))
    table = TEXT[TEXT.index("| variable |") : TEXT.index("Load on the GPUs")]
    documented = set(re.findall(r"`([A-Z_]{4,})`", table))

    assert documented == set(used)
    for name in ("SGLANG_IMAGE", "SGLANG_MODEL", "SGLANG_MEMORY", "TRIEWAY_BIND", "LOCUST_TARGET"):
        assert f"| `{name}` | `{used[name]}` |" in table


def test_the_table_of_profiles_is_complete(services: dict[str, Any]) -> None:
    table = TEXT[TEXT.index("| profile |") : TEXT.index("Naming `router-gpu`")]
    profiles = {profile for service in services.values() for profile in service.get("profiles", [])}

    assert profiles <= set(re.findall(r"`(\w+)`", table))
    for service in services.values():
        for port in service.get("ports", []):
            assert f":{port.split(':')[1]}" in table
