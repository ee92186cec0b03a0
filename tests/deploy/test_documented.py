"""Every docker command of the documentation, and the tables of docs/deployment.md: Compose has what they name.

The documentation's other commands are run by tests/docs.
"""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from documented import PAGES, steps

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/deployment.md").read_text("utf-8")
COMMANDS = sorted({step.text for page in PAGES for step in steps(page) if step.kind == "docker"})


def test_there_are_commands_to_look_at() -> None:
    assert len(COMMANDS) >= 6
    assert [command for command in COMMANDS if "docker compose " not in command] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_compose_has_its_profiles_services_and_variables(command: str, services: dict[str, Any]) -> None:
    words = shlex.split(command, comments=True)
    start = words.index("docker")
    profiles = {after for word, after in pairwise(words) if word == "--profile"}
    named = [word for word in words[words.index("up") + 1 :] if not word.startswith("--")]
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
