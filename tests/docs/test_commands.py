"""Every command of the documentation is run, against simulated workers; what cannot be run here is parsed.

What is rewritten: ports (8080 is the fleet's router, 30000 to 30002 its workers, or what the page itself has started
there; a server gets a free port), `PATHS`, the request id that stands for any, and curl fails on an error's status.
What is made smaller: `SMALLER`. Locust's processes meet on a free port. A page's commands run in order, in a folder of
its own that has the repository's in it.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import click
import httpx
import pytest
from click.testing import CliRunner

from documented import PAGES, ROOT, Step, Unclear, steps
from ports import free_ports
from served import Server

ANY_REQUEST = "req-0123456789abcdef"
PATHS = {"/var/log/trieway": "decision-log"}
PROGRAMS = ("bash", "curl", "locust", "make", "pytest", "python", "sed", "trieway", "zstdcat")
TOOLS = ("bash", "curl", "jq", "make", "sed", "zstdcat")
"""What the pages use and Python does not bring."""
SERVERS = {"serve": (8080, "/ready"), "up": (8080, "/ready"), "simulate": (30_000, "/v1/models")}
"""Commands that run until Ctrl-C, the port each listens on unless it says so, and what answers once it is ready."""
SMALLER = {
    "trieway loadtest quick --out": "--sessions 3 --repetitions 1 --policy round_robin --worker-url http://127.0.0.1:30000",
    "trieway loadtest quick": "--sessions 3 --repetitions 1 --policy round_robin",
    "trieway loadtest chat": "--sessions 3 --repetitions 1",
    "trieway loadtest run": "--sessions 3",
    "trieway loadtest goodput": "--sessions 3 --policy round_robin",
    "trieway loadtest workload rag": "--sessions 2 --policy round_robin --workers 1",
    "trieway loadtest workload": "--sessions 2",
    "trieway demo radix --plot": "--questions 2 --document-tokens 1000 --workers 1",
    "trieway demo radix": "--questions 2 --document-tokens 1000",
    "locust -f loadtests/locustfile.py": "--headless -u 2 -r 2 -t 2s --think-scale 0.1",
    "locust -f loadtests/locustfile_open.py": "--sessions 2 --sessions-per-s 20",
}
"""Words added to commands that begin so; of an option given twice the last counts."""


def trieway_command() -> click.Group:
    group = click.Group("trieway")
    for point in entry_points(group="trieway.commands"):
        for command in point.load():
            group.add_command(command)
    return group


class Reader:
    """Somebody who reads one page from top to bottom and does what it says."""

    def __init__(self, fleet: dict[int, int], folder: Path, environment: dict[str, str]) -> None:
        self._ports = dict(fleet)
        self._folder = folder
        self._environment = environment
        self._servers: dict[int, Server] = {}

    def close(self) -> None:
        for server in self._servers.values():
            server.stop()

    def read(self, page: Path) -> None:
        """Raises AssertionError and Unclear."""
        for step in steps(page):
            self.do(step)

    def do(self, step: Step) -> None:
        """Raises AssertionError for whatever does not work, with the place in the page."""
        if step.kind == "file":
            (self._folder / step.name).write_text(self._here(step.text) + "\n")
        elif step.kind == "run":
            self._run(step)
        else:
            parse(step)

    def _run(self, step: Step) -> None:
        command = smaller(step.text)
        words = shlex.split(command, comments=True)
        programs = [word for word in words if "=" not in word] if "\n" not in command else ["bash"]
        if programs[0].lstrip("(") not in PROGRAMS:
            raise Unclear(f"{step.where}: {programs[0]!r} is not a program that the documentation uses")
        if programs[0] == "make":
            command = f"make --dry-run -C {ROOT} {' '.join(words[1:])}"
        if programs[:1] == ["trieway"] and programs[1] in SERVERS:
            self._serve(programs[1], command)
            return
        here = self._here(command)
        environment = {**self._environment, "TRIEWAY_URL": f"http://127.0.0.1:{self._ports[8080]}"}
        if programs[0] == "trieway" and re.fullmatch(r"[^|<>$`;&]*", here):
            done = CliRunner().invoke(trieway_command(), shlex.split(here)[1:], env=environment)
            output, code = done.output, done.exit_code
        else:
            ran = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", here], cwd=self._folder, env=environment, timeout=100,
                stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            )  # fmt: skip
            output, code = ran.stdout + ran.stderr, ran.returncode
        assert code == 0, f"{step.where}: {here}\nended with {code}:\n{output[-3000:]}"

    def _serve(self, name: str, command: str) -> None:
        """Start it on free ports; from here on the page's own ports mean these."""
        found = re.search(r"--port (\d+)", command)
        documented, path = SERVERS[name]
        documented = int(found[1]) if found else documented
        if documented in self._servers:
            self._servers.pop(documented).stop()
        first, *others = free_ports(9)
        here = self._here(re.sub(r"--port \d+", "", command)) + f" --port {first}"
        if name == "up":
            here += f" --worker-port {others[0]}"
            self._ports |= {30_000 + place: port for place, port in enumerate(others)}
        self._ports[documented] = first
        self._servers[documented] = Server(here, f"http://127.0.0.1:{first}{path}", self._folder, self._environment)

    def _here(self, text: str) -> str:
        for documented, port in self._ports.items():
            text = re.sub(rf"(127\.0\.0\.1:|--port |\bport = ){documented}\b", rf"\g<1>{port}", text)
        for path, here in PATHS.items():
            text = text.replace(path, str(self._folder.parent / here))
        if ANY_REQUEST in text:
            text = text.replace(ANY_REQUEST, self._some_request())
        return re.sub(r"\bcurl (?!-sf)", "curl --fail-with-body --max-time 30 ", text)

    def _some_request(self) -> str:
        body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        answer = httpx.post(f"http://127.0.0.1:{self._ports[8080]}/v1/chat/completions", json=body, timeout=30)
        return str(answer.headers["x-request-id"])


def smaller(command: str) -> str:
    if "--processes" in command and not command.startswith("trieway serve"):
        [port] = free_ports(1)
        command += f" --master-bind-port {port} --master-port {port}"  # others may load something here, too
    for beginning, words in SMALLER.items():
        if command.startswith(beginning):
            return f"{command} {words}"
    return command


def parse(step: Step) -> None:
    """Have the real command read the line without doing it. Raises AssertionError."""
    words = shlex.split(step.text, comments=True)
    while words and re.fullmatch(r"\w+=.*", words[0], re.DOTALL):
        words = words[1:]
    words[0] = words[0].removeprefix(".venv/bin/")
    if words[0] == "trieway":
        for own in (word for word in words if re.fullmatch(r"[\w-]+\.toml", word)):
            Path(own).touch()  # a file of the reader's, here in the page's folder; one of ours has a folder in its name
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(click.Command, "invoke", lambda self, context: None)
            done = CliRunner().invoke(trieway_command(), words[1:])
        assert done.exit_code == 0, f"{step.where}: {step.text}\n{done.output}"
    elif words[0] in ("python", "pytest", "bash"):
        parse_script(step, words)
    elif words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets), f"{step.where}: {step.text}: no such target"
    elif words[0] not in ("curl", "docker", "pip", "locust"):  # docker: tests/deploy/test_documented.py
        raise Unclear(f"{step.where}: nobody knows how to read {words[0]!r}")


def parse_script(step: Step, words: list[str]) -> None:
    """The script exists, and so does the source of each of its options; so do tests that are named."""
    if words[1:2] == ["-m"]:
        return
    for name in (word for word in words[1:] if re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?", word)):
        assert (ROOT / name).exists(), f"{step.where}: {name} does not exist"
    script = ROOT / words[1] if words[0] == "python" else None
    if script is not None and script.exists():
        sources = sorted(script.glob("*.py")) if script.is_dir() else [script]
        text = "".join(source.read_text("utf-8") for source in sources)
        options = [word.partition("=")[0] for word in words[2:] if word.startswith("--")]
        assert [option for option in options if f'"{option}"' not in text] == [], f"{step.where}: {step.text}"


@pytest.fixture
def reader(
    fleet: dict[int, int], tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Reader]:  # fmt: skip
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed here: {', '.join(missing)} (Debian: curl, jq, zstd)")
    folder = tmp_path_factory.mktemp("page")
    for name in ("benchmarks", "deploy", "docs", "loadtests", "tests"):
        (folder / name).symlink_to(ROOT / name)
    monkeypatch.chdir(folder)
    somebody = Reader(fleet, folder, environment)
    yield somebody
    somebody.close()


@pytest.mark.timeout(400)  # minutes only where others use the machine too
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_reader_who_does_what_the_page_says_sees_no_error(page: Path, reader: Reader) -> None:
    reader.read(page)


@pytest.mark.parametrize(
    "text",
    [
        "    trieway policies --no-such-option",
        "    trieway serve --no-such-option --worker http://127.0.0.1:30000",
        "    trieway nothing",
        "    curl -s http://127.0.0.1:8080/no-such-page",
        "    rm -rf somewhere",
        "```sh\ntrue\nfalse\ntrue\n```",
        "```sh gpu\ntrieway workers launch --model x --no-such-option\n```",
        "```sh gpu\ntrieway workers launch --model x --tp many\n```",
        "```sh long\npython benchmarks/nothing.py\n```",
        "```sh long\npython benchmarks/decision.py --no-such-option\n```",
        "```sh long\nmake nothing\n```",
        "```\ntrieway policies\n```",
        "```toml trieway.toml\nno_such_key = 1\n```\n\n    trieway check-config --config trieway.toml",
    ],
)
def test_a_page_with_something_that_does_not_work_fails(text: str, reader: Reader, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n{text}\n")

    with pytest.raises((AssertionError, Unclear)):
        reader.read(page)
