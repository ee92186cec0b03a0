"""What the documentation names exists: files, anchors, settings, metrics, flags, queries."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from documented import PAGES, ROOT, anchors, prose, queries, spans
from router.config import knobs

METRICS = (ROOT / "docs/metrics.md").read_text("utf-8")
KEYS = {knob.key for knob in knobs()}
SECTIONS = {key.split(".")[0] for key in KEYS if "." in key}


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    lost = []
    for target in re.findall(r"(?<=\]\()[^)\s]+(?=\))|(?<=src=\")[^\"]+", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / unquote(path)).resolve() if path else page
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            lost.append(target)

    assert lost == []


def test_every_page_is_linked_from_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text("utf-8")

    assert [page.name for page in PAGES if page != ROOT / "docs/README.md" and f"{page.name})" not in index] == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_files_in_backticks_exist(page: Path) -> None:
    folders = "router|workers|loadtests|tests|docs|deploy|benchmarks"
    named = [span for span in spans(page) if re.fullmatch(rf"({folders})/[\w./-]+", span)]

    assert [name for name in named if "my_" not in name and not (ROOT / name).exists()] == []


def lost_benchmarks(text: str) -> list[str]:
    """Of the benchmarks that a text says to start, in prose or in a block, those that are no program here. A folder is
    one when it has a __main__.py."""
    lost = []
    for flag, name in re.findall(r"\bpython3?\s+(-m\s+)?(benchmarks[/.][\w./]*\w)", text):
        path = ROOT / (name.replace(".", "/") if flag else name)
        if not any(file.is_file() for file in (path / "__main__.py", path.with_suffix(".py") if flag else path)):
            lost.append(name)
    return lost


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=ids)
def test_benchmarks_to_start_exist(page: Path) -> None:
    assert lost_benchmarks(page.read_text("utf-8")) == []


def test_a_benchmark_that_does_not_exist_would_be_seen() -> None:
    there = "`python benchmarks/decision.py --scale`, `python -m benchmarks.data_path.in_process`"

    assert lost_benchmarks(f"{there} `python\nbenchmarks/chaos`, `python -m benchmarks.data_path`.") == []
    assert lost_benchmarks("`python benchmarks/decide.py`; python -m benchmarks.h200") == [
        "benchmarks/decide.py", "benchmarks.h200"
    ]  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_settings_in_backticks_exist(page: Path) -> None:
    named = [found[1] for span in spans(page) if (found := re.match(r"([a-z_]+(?:\.[a-z_]+)+)(?:$| ?=)", span))]

    ours = [name for name in named if name.split(".")[0] in SECTIONS and not name.endswith(".py")]

    assert [name for name in ours if name not in KEYS] == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_metrics_in_backticks_are_in_the_table(page: Path) -> None:
    named = {re.match(r"\w+", span)[0] for span in spans(page) if re.match(r"trieway_\w+", span)}  # type: ignore[index]

    assert sorted(name for name in named - {"trieway_decision_log"} if f"| `{name}` |" not in METRICS) == []


def commands_in(page: Path) -> Iterator[list[str]]:
    for span in spans(page):
        if span.startswith("trieway "):
            yield span.split()[1:]


def unknown_words(words: list[str]) -> list[str]:
    """Of a command line that stands in prose, the first word that is no command, and the flags that are none."""
    group = click.Group("trieway", {each.name or "": each for point in entry_points(group="trieway.commands")
                                    for each in point.load()})  # fmt: skip
    command: click.Command = group
    context = click.Context(group)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        if found is None:
            return [] if words[0].isupper() or command.name == "loadtest" else [words[0]]
        context = found.make_context(words[0], [], resilient_parsing=True)
        command, words = context.command, words[1:]
    known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    flags = [word.split("=")[0].rstrip(",") for word in words if word.startswith("--") and word != "--"]
    return [flag for flag in flags if flag not in known | {"--help"}]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_in_prose_exist_with_their_flags(page: Path) -> None:
    wrong = {" ".join(words): unknown_words(words) for words in commands_in(page)}

    assert {command: words for command, words in wrong.items() if words} == {}


def test_a_command_or_flag_that_does_not_exist_would_be_seen() -> None:
    assert unknown_words(["explain", "ID", "--jsn"]) == ["--jsn"]
    assert unknown_words(["workers", "lunch"]) == ["lunch"]
    assert unknown_words(["loadtest", "goodput", "--virtually"]) == ["--virtually"]


def test_queries_ask_for_metrics_of_the_table() -> None:
    asked = {(where, name) for where, query in queries() for name in re.findall(r"\b(?:trieway|process)_\w+", query)}

    assert len(asked) >= 10
    assert {(where, name) for where, name in asked if f"| `{re.sub('_(bucket|sum|count)$', '', name)}` |" not in METRICS
            } == set()  # fmt: skip


def test_queries_are_promql(tmp_path: Path) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed here (Debian: prometheus)")
    rules = "".join(f"  - {{record: q{i}, expr: '{query}'}}\n" for i, (_, query) in enumerate(queries()))
    file = tmp_path / "rules.yml"
    file.write_text(f"groups:\n- name: docs\n  rules:\n{rules}")
    checked = subprocess.run([program, "check", "rules", file], capture_output=True, text=True, check=False, timeout=60)

    assert checked.returncode == 0, checked.stderr + checked.stdout


def ttft_cells(page: Path) -> set[str]:
    """Cells like "0.55 / 0.36 / 1.36 / 2.46" of the page's tables."""
    text = page.read_text("utf-8").replace("**", "")
    return {cell.strip() for cell in re.findall(r"\|([^|\n]+)", text) if re.fullmatch(r" [\d.]+( / [\d.]+){3} ", cell)}


def measured_cells(runs: Path) -> set[str]:
    """The same of a committed result of benchmarks/routers_on_gpus.py."""
    figures = ("ttft_mean_s", "ttft_p50_s", "ttft_p90_s", "ttft_p99_s")
    return {" / ".join(f"{run[each]:.2f}" for each in figures) for run in json.loads(runs.read_text())["runs"]}


def test_latencies_of_the_readme_are_those_of_its_page_and_of_the_committed_runs() -> None:
    measured = {cell for file in (ROOT / "benchmarks/h200").glob("routers-*.json") for cell in measured_cells(file)}
    shown, explained = ttft_cells(ROOT / "README.md"), ttft_cells(ROOT / "docs/routers-on-h200.md")

    assert len(shown) >= 3
    assert shown <= explained <= measured
