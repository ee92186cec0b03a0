"""The architecture as tests: who may import whom, how long files may be, that every module says what it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("router", "workers", "loadtests")
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 110
FORBIDDEN = {
    "router": ("workers", "loadtests"),
    "workers": ("router", "loadtests"),
    "router/prefix": ("router.policies", "router.fleet", "router.request", "router.telemetry", "router.app"),
    "router/policies": ("router.fleet", "router.request", "router.telemetry", "router.app", "asyncio", "time"),
    "router/fleet": ("router.request", "router.policies", "router.telemetry", "router.app"),
    "router/experiment": ("router.fleet", "router.request", "router.telemetry", "router.app"),
    "router/telemetry": ("router.request", "router.policies", "router.app"),
    "router/processes": ("router.request", "router.dashboard", "router.config_commands"),
}
KNOW_PROCESSES = ("router/app.py", "router/config_commands.py", "router/processes")
"""Nobody else may know that there can be several."""
LOADTESTS_MAY = (
    "router.policies", "router.records", "router.types", "router.prefix", "router.admission.held_queue",
    "workers.simulated",
)  # fmt: skip


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_only_point_along_the_arrows(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / folder).rglob("*.py")
        for name in imports(path)
        if any(under(name, banned) for banned in FORBIDDEN[folder])
    ]

    assert wrong == []


def test_only_the_composition_knows_that_there_can_be_several_processes() -> None:
    knowing = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "router").rglob("*.py")
        if any(under(name, "router.processes") for name in imports(path))
    ]

    assert [name for name in knowing if not name.startswith(KNOW_PROCESSES)] == []


def test_loadtests_see_only_what_replay_needs_of_router_and_workers() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / "loadtests").rglob("*.py")
        for name in imports(path)
        if (under(name, "router") or under(name, "workers")) and not any(under(name, ok) for ok in LOADTESTS_MAY)
    ]

    assert wrong == []


def test_every_module_says_what_it_is() -> None:
    silent = [str(path.relative_to(ROOT)) for path in modules() if not ast.get_docstring(ast.parse(path.read_text()))]

    assert silent == []


def test_files_and_functions_stay_readable() -> None:
    long: list[str] = []
    for path in modules():
        text = path.read_text()
        if text.count("\n") > MAX_FILE_LINES:
            long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                length = node.end_lineno - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}: {node.name} has {length} lines")

    assert long == []


def test_the_reading_order_of_the_readme_exists() -> None:
    named = [word.strip("`,.") for word in (ROOT / "README.md").read_text().split() if word.startswith("`router/")]

    assert len(named) >= 7
    assert [name for name in named if not (ROOT / name).exists()] == []
