"""Compiled modules: found only while they are of these sources, and then deciding as the interpreted ones do."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from random import Random
from typing import Any

import pytest

from router.compiled import MANIFEST, ROOT, CompiledFinder, digest, interpreted, usable

SUFFIX = EXTENSION_SUFFIXES[0]


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder as deploy/compile.py leaves it, of one source."""
    (tmp_path / "router").mkdir()
    source = tmp_path / "router" / "one.py"
    source.write_text("ONE = 1\n")
    manifest = {
        "suffix": SUFFIX,
        "modules": {"router.one": f"router.one{SUFFIX}"},
        "sources": {"router/one.py": digest(source)},
    }
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    return tmp_path


def run(*argv: str, **env: str) -> str:
    plain = {key: value for key, value in os.environ.items() if key != "TRIEWAY_INTERPRETED"}
    done = subprocess.run(
        [sys.executable, *argv], capture_output=True, text=True, cwd=ROOT, env=plain | env, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_was_compiled_of_these_sources_is_used(built: Path) -> None:
    assert usable(built, built) == {"router.one": built / f"router.one{SUFFIX}"}


def test_a_source_that_changed_turns_it_off(built: Path) -> None:
    (built / "router" / "one.py").write_text("ONE = 2\n")

    assert usable(built, built) == {}


def test_a_source_that_is_gone_turns_it_off(built: Path) -> None:
    (built / "router" / "one.py").unlink()

    assert usable(built, built) == {}


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"suffix": ".cpython-27.so", "modules": {}, "sources": {}}'])
def test_a_manifest_of_another_python_or_a_damaged_one_turns_it_off(built: Path, damage: str) -> None:
    (built / MANIFEST).write_text(damage)

    assert usable(built, built) == {}


def test_only_the_compiled_modules_are_found(built: Path) -> None:
    finder = CompiledFinder(usable(built, built))

    spec = finder.find_spec("router.one")
    assert spec is not None
    assert spec.origin == str(built / f"router.one{SUFFIX}")
    assert finder.find_spec("router.two") is None


def test_a_class_that_stays_ordinary_is_itself() -> None:
    assert interpreted(Path) is Path


def test_the_environment_can_ask_for_the_sources() -> None:
    program = (
        "from router.compiled import how_it_runs; import router.policies.expected_ttft as policy;"
        "print(policy.__file__); print(how_it_runs())"
    )
    file, how = run("-c", program, TRIEWAY_INTERPRETED="1").splitlines()

    assert Path(file) == ROOT / "router/policies/expected_ttft.py"
    assert how == "interpreted, as TRIEWAY_INTERPRETED asks"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Conversations that grow and share prefixes, faster than two workers with little memory can serve them."""
    draw = Random(5)
    talks: list[list[int]] = [[draw.randrange(6)] for _ in range(30)]
    lines = []
    for number in range(400):
        talk = talks[draw.randrange(len(talks))]
        talk.extend(draw.randrange(10, 10**6) for _ in range(draw.randrange(1, 5)))
        if len(talk) > 40:
            del talk[1:]
        row = {
            "timestamp": number * 60,
            "input_length": 512 * len(talk) - draw.randrange(500),
            "output_length": draw.randrange(1, 300),
            "hash_ids": list(talk),
        }
        lines.append(json.dumps(row))
    file = tmp_path / "trace.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_compiled_and_interpreted_decide_alike_to_the_last_digit(trace: Path) -> None:
    if not usable():
        pytest.skip("nothing is compiled, or a source has changed since: make compile")
    argv = ["-m", "loadtests", "replay", str(trace), "--policy", "expected_ttft", "--workers", "2"]
    argv += ["--capacity", "60000", "--seed", "3", "--json"]
    compiled, plain = (json.loads(run(*argv, TRIEWAY_INTERPRETED=asked)) for asked in ("", "1"))

    def figures(found: dict[str, Any]) -> list[dict[str, Any]]:
        return [{key: value for key, value in each.items() if "per_s" not in key} for each in found["results"]]

    assert figures(compiled)[0]["token_hit_ratio"] > 0.1
    assert figures(compiled) == figures(plain)


def listed() -> list[str]:
    """What deploy/compile.py compiles."""
    tree = ast.parse((ROOT / "deploy/compile.py").read_text())
    (value,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MODULES"
    ]
    found: list[str] = list(ast.literal_eval(value))
    return found


@pytest.mark.parametrize("module", listed())
def test_no_compiled_module_defines_a_record_of_msgspec(module: str) -> None:
    """Compiled, its options (frozen, eq, gc) would be dropped, and optional fields not be read."""
    classes = [node for node in ast.walk(ast.parse((ROOT / module).read_text())) if isinstance(node, ast.ClassDef)]

    assert [each.name for each in classes if any("Struct" in ast.unparse(base) for base in each.bases)] == []


def waits(node: ast.AST, *, handling: bool = False) -> list[int]:
    """The lines that wait while an exception is being handled: in `except`, in `finally`, at an `async with`'s end."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        handling = False
    found = []
    if isinstance(node, ast.AsyncWith):  # a timeout's end never waits
        if not all(ast.unparse(item.context_expr).startswith("asyncio.timeout(") for item in node.items):
            found.append(node.lineno)
    elif handling and isinstance(node, ast.Await | ast.Yield | ast.YieldFrom | ast.AsyncFor):
        found.append(node.lineno)
    behind = [*node.handlers, *node.finalbody] if isinstance(node, ast.Try) else []
    for child in ast.iter_child_nodes(node):
        found += waits(child, handling=handling or child in behind)
    return found


@pytest.mark.parametrize("module", listed())
def test_no_compiled_coroutine_waits_while_it_handles_an_exception(module: str) -> None:
    """Compiled, it has no exception state of its own: what it handles would be what the thread handles while it waits,
    and what another request handled would be left there for good (mypy 2.4).
    """
    assert waits(ast.parse((ROOT / module).read_text())) == []


def test_where_it_cannot_be_compiled_the_installation_goes_on(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "router", tmp_path / "router", ignore=shutil.ignore_patterns("_compiled*", "__pycache__"))
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy", ignore=shutil.ignore_patterns("__pycache__"))
    broken = tmp_path / "broken" / "mypyc"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('no compiler here')\n")
    argv = [sys.executable, str(tmp_path / "deploy" / "compile.py")]
    env = os.environ | {"PYTHONPATH": str(tmp_path / "broken")}

    optional = subprocess.run([*argv, "--optional"], capture_output=True, text=True, env=env, timeout=60, check=False)
    asked = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=60, check=False)

    assert (optional.returncode, asked.returncode) == (0, 1)
    assert "ImportError: no compiler here" in optional.stderr
    assert "runs interpreted" in optional.stderr
    assert not list((tmp_path / "router").glob("_compiled*"))
