"""The commands: start-up errors name the key and the nearest valid one; output for people and for programs."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from router.cli import commands
from router.config_commands import check_config, policies, serve


def run(command: object, *args: str, **env: str) -> Result:
    return CliRunner().invoke(command, args, env=env)  # type: ignore[arg-type]


def test_an_unknown_policy_names_the_nearest() -> None:
    result = run(check_config, "--policy", "prefix_mach")

    assert result.exit_code == 1
    assert "prefix_match" in result.output


def test_an_unknown_key_in_a_file_names_the_key_and_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "trieway.toml"
    file.write_text("[health]\nintervall_s = 3\n")
    result = run(check_config, "--config", str(file))

    assert result.exit_code == 1
    assert "intervall_s" in result.output
    assert "interval_s" in result.output


@pytest.mark.parametrize("text", ["[health\n", "[health]\ninterval_s = 'x'\n", "[health]\ninterval_s = -1\n"])
def test_a_bad_file_is_one_clear_error_without_a_traceback(text: str, tmp_path: Path) -> None:
    file = tmp_path / "trieway.toml"
    file.write_text(text)
    result = run(check_config, "--config", str(file))

    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert "Traceback" not in result.output


def test_a_file_that_is_not_there_is_named() -> None:
    result = run(check_config, "--config", "/nowhere/trieway.toml")

    assert result.exit_code == 1
    assert "/nowhere/trieway.toml" in result.output


def test_a_worker_url_that_is_not_one_ends_the_start() -> None:
    result = run(serve, "--worker", "localhost")

    assert result.exit_code == 1
    assert "http://127.0.0.1:30000" in result.output


def test_a_port_that_is_taken_ends_the_start_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run(serve, "--port", str(port), "--worker", "http://127.0.0.1:30000")

    assert result.exit_code == 1
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use. Choose another --port" in result.output


def test_flags_win_over_the_environment_which_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "trieway.toml"
    file.write_text('policy = "random"\n')

    from_file = run(check_config, "--config", str(file))
    from_env = run(check_config, "--config", str(file), TRIEWAY_POLICY="round_robin")
    from_flag = run(check_config, "--config", str(file), "--policy", "session_hash", TRIEWAY_POLICY="round_robin")

    assert "random" in from_file.output
    assert "round_robin" in from_env.output
    assert "session_hash" in from_flag.output


def test_every_policy_is_listed_with_its_parameters_for_programs_too() -> None:
    shown = run(policies)
    listed = json.loads(run(policies, "--json").output)

    assert {"random", "round_robin", "least_in_flight", "power_of_two", "session_hash", "prefix_match"} <= set(listed)
    assert all(name in shown.output for name in listed)
    assert listed["prefix_match"]["parameters"]["capacity_blocks"]["default"] == 65_536


def test_a_command_is_listed_with_the_first_line_of_its_own_help() -> None:
    for command in commands:
        context = command.make_context(command.name, [], resilient_parsing=True)
        shown = command.short_help or (command.help or "").partition("\n")[0]

        assert shown == (context.command.help or "").partition("\n")[0]


def test_a_command_that_serves_nothing_does_not_wait_for_the_web_framework() -> None:
    loaded = "import sys, router.cli, loadtests.cli, workers.cli, router.policies; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True, timeout=60)

    assert not {"fastapi", "uvicorn", "router.app", "numpy"} & set(done.stdout.split())
