from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from loadtests.cli import commands
from loadtests.lazy_command import LazyCommand

HEAVY = ("locust", "matplotlib", "numpy", "aiohttp", "httpx", "rich")


def test_listing_the_commands_imports_nothing_heavy() -> None:
    code = f"import sys, loadtests.cli; print([name for name in {HEAVY} if name in sys.modules])"
    root = str(Path(__file__).parents[2])
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True).stdout
    assert said == "[]\n"


def test_help_lists_every_command_with_its_summary() -> None:
    said = CliRunner().invoke(click.Group("trieway", commands=commands), ["--help"]).output
    for command in commands:
        assert command.name is not None
        assert command.name in said
        assert command.get_short_help_str() in said


def test_a_lazy_command_is_the_command_it_stands_for() -> None:
    said = CliRunner().invoke(click.Group("trieway", commands=commands), ["loadtest", "--help"]).output
    assert "trace" in said
    assert "workload" in said


def test_a_missing_package_of_the_extra_is_one_message_with_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_plots.py").write_text("import matplotlib.pyplot")
    (tmp_path / "needs_nonsense.py").write_text("import no_such_module")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    group = click.Group("trieway", commands=[LazyCommand("plots", "needs_plots:command", "Draws.")])
    result = CliRunner().invoke(group, ["plots"])
    assert result.exit_code == 1
    assert "pip install 'trieway[loadtest]'" in result.output
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        LazyCommand("broken", "needs_nonsense:command", "Breaks.").load()
