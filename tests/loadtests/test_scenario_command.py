"""`trieway loadtest SCENARIO` as people call it: in virtual time, and live against stub servers."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from loadtests.loadtest_command import loadtest
from loadtests.scenario import read_scenario
from loadtests.scenario_run import order
from ports import free_port

pytestmark = pytest.mark.slow

STUB = str(Path(__file__).parent / "programs" / "stub_server.py")
ROOT = Path(__file__).parents[2]
TOML = """
title = "Tiny & <quick>"
policies = ["round_robin", "prefix_match:load_slack=8"]
[workload]
kind = "shared_prefix"
sessions = 30
sessions_per_s = 40.0
system_tokens = 300
output_tokens = 4
[fleet]
workers = 2
[objectives.quick]
ttft_s = 0.3
share = 0.9
[goodput]
tolerance = 0.5
max_trials = 8
"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(loadtest, [str(argument) for argument in arguments])


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TOML)
    return path


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[str]:
    """The URL of a stub that serves as worker and as router; its journal is `journal` in tmp_path."""
    port = free_port()
    command = [sys.executable, STUB, "router", "--host", "127.0.0.1", "--port", str(port), "--worker", "a"]
    process = subprocess.Popen(command, env={**os.environ, "STUB_JOURNAL": str(tmp_path / "journal")})
    until_s = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5).close()
            break
        except urllib.error.URLError:
            assert time.monotonic() < until_s, "the stub does not answer"
            time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def virtual(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """One run in virtual time with a search, and the folder that it wrote."""
    folder = tmp_path_factory.mktemp("virtual")
    (folder / "tiny.toml").write_text(TOML)
    return call(folder / "tiny.toml", "--virtual", "--out", folder / "out", "--goodput"), folder / "out"


class Page(HTMLParser):
    """What a report is made of: open tags, and what it would load from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.counts: Counter[str] = Counter()
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] += 1
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.loaded += [value for name, value in attrs if value and name in ("src", "href", "xlink:href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_policies_take_turns_at_going_first() -> None:
    assert order(("a", "b", "c"), 2) == [(0, "a"), (0, "b"), (0, "c"), (1, "c"), (1, "b"), (1, "a")]


def test_virtual_time_gives_tables_a_page_rows_and_json(virtual: tuple[Result, Path]) -> None:
    result, out = virtual
    assert result.exit_code == 0, result.output
    assert "Against round_robin, with 95 % intervals" in result.stdout
    assert "Goodput: 90 % of requests with TTFT <= 0.3 s" in result.stdout
    assert f"Report: {out / 'report.html'}" in result.stderr
    said = msgspec.json.decode((out / "report.json").read_bytes())
    assert [arm["arm"] for arm in said["arms"]] == ["round_robin", "prefix_match:load_slack=8"]
    assert [(run["arm"], run["repetition"], run["requests"]) for run in said["runs"]] == [
        ("round_robin", 0, 30), ("prefix_match:load_slack=8", 0, 30),
        ("prefix_match:load_slack=8", 1, 30), ("round_robin", 1, 30),
    ]  # fmt: skip
    cached = next(one for one in said["differences"] if one["figure"] == "cached")
    assert cached["verdict"] == "better"
    assert 0 < cached["low"] <= cached["change"] <= cached["high"]
    assert said["goodput"][0]["best"]["met"] is True
    assert said["conditions"]["virtual"] is True
    with (out / "requests.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["arm"] for row in rows) == {"round_robin": 60, "prefix_match:load_slack=8": 60}
    assert {row["repetition"] for row in rows} == {"0", "1"}


def test_a_report_is_one_valid_page_that_loads_nothing(virtual: tuple[Result, Path]) -> None:
    text = (virtual[1] / "report.html").read_text()
    page = Page(text)

    assert page.open == []
    assert [one for one in page.loaded if not one.startswith("#")] == []
    assert page.counts["svg"] == 5
    assert page.counts["table"] == 3
    assert "Tiny &amp; &lt;quick&gt;" in text
    assert "system_tokens = 300" in text
    assert re.search(r'<td class="better">[\d.]+ %<small>\+\d+ points \[', text)


def test_virtual_time_repeats_itself(virtual: tuple[Result, Path], scenario: Path, tmp_path: Path) -> None:
    first = msgspec.json.decode((virtual[1] / "report.json").read_bytes())
    again = msgspec.json.decode(call("run", scenario, "--virtual", "--json", "--out", tmp_path).stdout)

    assert (again["runs"], again["differences"]) == (first["runs"], first["differences"])
    assert again["goodput"] == []


def test_flags_change_what_the_scenario_says(scenario: Path, tmp_path: Path) -> None:
    result = call(
        scenario, "--virtual", "--out", tmp_path / "out", "--json", "--policy", "random", "--repetitions", 1,
        "--sessions", 7, "--workers", 3, "--seed", 5,
    )  # fmt: skip
    said = msgspec.json.decode(result.stdout)

    assert [(run["arm"], run["requests"]) for run in said["runs"]] == [("random", 7)]
    assert len(said["runs"][0]["requests_by_worker"]) == 3
    assert said["differences"] == []
    assert said["conditions"]["fleet"][0].startswith("3 simulated workers")


def test_running_routers_are_compared_and_their_workers_flushed_before_each_run(
    stub: str, scenario: Path, tmp_path: Path
) -> None:
    result = call(
        scenario, "--endpoint", f"mine={stub}/v1", "--endpoint", f"other={stub}", "--worker-url", stub,
        "--out", tmp_path / "out", "--repetitions", 1, "--json",
    )  # fmt: skip
    said: dict[str, Any] = msgspec.json.decode(result.stdout)

    assert "tiny: 2 endpoints x 1 repetitions of 30 requests; arrivals alone take 2 s" in result.stderr
    assert [(run["arm"], run["requests"], run["errors"]) for run in said["runs"]] == [
        ("mine", 30, 0), ("other", 30, 0),
    ]  # fmt: skip
    kinds = [line.split()[0] for line in (tmp_path / "journal").read_text().splitlines()]
    assert kinds == ["start", "flush", *["call"] * 30, "flush", *["call"] * 30]
    assert said["conditions"]["fleet"] == [f"mine: {stub}/v1", f"other: {stub}"]


def children() -> set[int]:
    """Processes that any thread of this one started and has not collected."""
    return {int(pid) for task in Path("/proc/self/task").glob("*/children") for pid in task.read_text().split()}


def test_a_live_run_starts_real_routers_and_simulated_workers_and_leaves_nothing(
    scenario: Path, tmp_path: Path
) -> None:
    before = children()
    result = call(scenario, "--out", tmp_path / "out", "--repetitions", 1, "--sessions", 12, "--json")

    assert result.exit_code == 0, result.output
    runs = msgspec.json.decode(result.stdout)["runs"]
    assert [(run["arm"], run["requests"], run["errors"]) for run in runs] == [
        ("round_robin", 12, 0), ("prefix_match:load_slack=8", 12, 0),
    ]  # fmt: skip
    assert all(run["cached_tokens"] > 0 and run["itl_s"] is not None for run in runs)
    assert not children() - before  # other tests' servers may run beside


def test_a_goodput_search_alone_writes_its_trials(stub: str, scenario: Path, tmp_path: Path) -> None:
    """No rate fails within the eight trials, and four sessions are soon sent."""
    scenario.write_text(TOML.replace("ttft_s = 0.3", "ttft_s = 60.0"))
    result = call("goodput", scenario, "--endpoint", f"mine={stub}", "--out", tmp_path / "out", "--sessions", 4)
    said = msgspec.json.decode((tmp_path / "out" / "report.json").read_bytes())

    assert "too high" in result.stdout
    assert [trial["rate"] for trial in said["goodput"][0]["trials"]] == [2.0**power for power in range(8)]
    assert said["runs"] == []
    assert Page((tmp_path / "out" / "report.html").read_text()).counts["svg"] == 1


def test_hopeless_trials_are_given_up_early(tmp_path: Path, scenario: Path) -> None:
    scenario.write_text(TOML.replace("ttft_s = 0.3", "ttft_s = 0.000001"))
    result = call("goodput", scenario, "--virtual", "--policy", "random", "--out", tmp_path / "out", "--json")
    (found,) = msgspec.json.decode(result.stdout)["goodput"]

    assert found["best"] is None
    assert all(trial["gave_up"] and not trial["met"] for trial in found["trials"])
    assert found["trials"][0]["share"] > 0.8


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "quik"), "quik: no such file. Did you mean 'quick'? Scenarios that come with Trieway: "),
        (("{tiny}", "--policy", "prefix_mach"), "Did you mean 'prefix_match'?"),
        (("{tiny}", "--endpoint", "http://x"), "write --endpoint as NAME=URL"),
        (("{tiny}", "--endpoint", "a=localhost:1"), "'localhost:1' is not a URL like http://"),
        (("{tiny}", "--endpoint", "a=http://127.0.0.1:1"), "endpoint 'a': nothing answers at http://127.0.0.1:1/v1/models"),
        (("{tiny}", "--worker-url", "http://127.0.0.1:1"), "is it running? `trieway up` starts simulated"),
        (("{tiny}", "--virtual", "--worker-url", "http://127.0.0.1:1"), "virtual time has simulated workers only"),
        (("goodput", "{plain}", "--virtual"), "a goodput search needs an objective; add [objectives.NAME]"),
        (("{secret}", "--endpoint", "a=http://127.0.0.1:1"), "names NO_SUCH_KEY_HERE, which is not set"),
        (("{tiny}", "--virtual", "--out", "{tiny}/x"), "cannot write the report to"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_error(
    scenario: Path, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    plain, secret = tmp_path / "plain.toml", tmp_path / "secret.toml"
    plain.write_text('[workload]\nkind = "uniform"\n')
    secret.write_text('[workload]\nkind = "uniform"\n[fleet]\napi_key_env = "NO_SUCH_KEY_HERE"\n')
    result = call(*(one.format(tiny=scenario, plain=plain, secret=secret) for one in arguments))

    assert result.exit_code in (1, 2)
    assert says in result.stderr
    assert "Traceback" not in result.output


def test_the_shipped_scenarios_are_listed_and_found_by_name(tmp_path: Path) -> None:
    listed = call("scenarios").stdout
    assert re.search(r"^quick +Shared system prompts", listed, re.MULTILINE)

    result = call("quick", "--virtual", "--out", tmp_path, "--repetitions", 1, "--sessions", 10)
    assert result.exit_code == 0, result.output


def test_ctrl_c_writes_a_report_of_what_was_measured(stub: str, scenario: Path, tmp_path: Path) -> None:
    scenario.write_text(TOML.replace("sessions_per_s = 40.0", "sessions_per_s = 1.0"))
    command = [sys.executable, "-m", "loadtests", "loadtest", str(scenario), "--endpoint", f"a={stub}"]
    with subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        journal = tmp_path / "journal"
        until_s = time.monotonic() + 60
        while journal.read_text().count("call") < 2:
            assert time.monotonic() < until_s
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "Interrupted: differences use only repetitions that every arm completed." in output
    assert errors.endswith("Interrupted; everything that was started has been stopped.\n")
    said = msgspec.json.decode((tmp_path / "out" / "report.json").read_bytes())
    assert [run["complete"] for run in said["runs"]] == [False]


class FlushedOnce(BaseHTTPRequestHandler):
    """Empties its cache once, and is gone."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.server.server_close()

    def log_message(self, *_: object) -> None:
        """Quiet."""


def test_what_was_measured_is_written_when_a_server_goes_away(stub: str, scenario: Path, tmp_path: Path) -> None:
    server = HTTPServer(("127.0.0.1", 0), FlushedOnce)
    serving = threading.Thread(target=server.handle_request)
    serving.start()
    worker = f"http://127.0.0.1:{server.server_port}"
    result = call(
        scenario, "--endpoint", f"a={stub}", "--endpoint", f"b={stub}", "--worker-url", worker,
        "--out", tmp_path / "out", "--sessions", 2,
    )  # fmt: skip
    serving.join()

    assert result.exit_code == 1
    assert f"nothing answers at {worker}/flush_cache" in result.stderr
    said = msgspec.json.decode((tmp_path / "out" / "report.json").read_bytes())
    assert [(run["arm"], run["requests"]) for run in said["runs"]] == [("a", 2)]


def test_a_policy_parameter_reaches_the_router_as_its_flag() -> None:
    from loadtests.fleet import _policy_arguments

    assert _policy_arguments("prefix_match:load_factor=2,load_slack=8") == [
        "--policy", "prefix_match", "--prefix-match-load-factor", "2", "--prefix-match-load-slack", "8",
    ]  # fmt: skip
    assert read_scenario(ROOT / "loadtests" / "scenarios" / "quick.toml").policies == ("round_robin", "expected_ttft")
