"""One Locust process of ours: its options, what its users share, and what it prints in the end.

`register` hooks it into Locust. Called by locustfile.py. Not here: behaviour of users (users.py), statistics
(locust_metrics.py).
"""

# mypy: allow-untyped-calls
# Locust annotates its functions only in part.

from __future__ import annotations

import itertools
import logging
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from rich.console import Console

from loadtests.comparison import Run
from loadtests.endpoint import TargetError
from loadtests.locust_distributed import MasterLink, WorkerLink
from loadtests.locust_metrics import LocustMetrics
from loadtests.locust_schedule import Schedule, Share, schedule_of
from loadtests.measures import RequestResult, summarize
from loadtests.table import as_json, comparison_table, remarks, write_csv
from loadtests.trace_file import TraceError

log = logging.getLogger(__name__)

_SESSIONS_PER_PROCESS = 1_000_000
"""Sessions are numbered from here on in the second process, and so on, so that no two processes play the same one."""


class LocustRun:
    """What the users of one process share."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.metrics = LocustMetrics(environment)
        self.model = ""
        self.schedule: Schedule | None = None
        self.share: Share | None = Share()
        self.master: MasterLink | None = None
        self.started = False
        self._numbers = itertools.count()
        logging.getLogger("httpx").setLevel(logging.WARNING)  # Locust shows what libraries log

    @classmethod
    def of(cls, environment: Environment) -> LocustRun:
        """The run that `register` attached. Raises KeyError when it did not."""
        run: LocustRun = vars(environment)["trieway"]
        return run

    @property
    def options(self) -> Namespace:
        options: Namespace | None = self.environment.parsed_options
        if options is None:
            raise RuntimeError("Locust was started without a command line")
        return options

    def next_session(self) -> int:
        """A number that no other user of this test has, in any process."""
        runner = self.environment.runner
        process = runner.worker_index if isinstance(runner, WorkerRunner) else 0
        return process * _SESSIONS_PER_PROCESS + next(self._numbers)

    def connect(self) -> None:
        """Links this process to the others of a distributed test. A worker plays nothing until it is told its share."""
        runner = self.environment.runner
        if isinstance(runner, MasterRunner):
            self.master = MasterLink(runner)
        elif isinstance(runner, WorkerRunner):
            self.share = None
            WorkerLink(runner, take_share=self.take_share, close=self.metrics.close)

    def take_share(self, share: Share) -> None:
        self.share = share

    def start(self) -> None:
        """Before a test: forgets the last one, finds the model and reads the schedule of an open loop. What cannot be
        used is logged, and then users send nothing, since `model` is empty.
        """
        self.metrics.restart()
        self.schedule = None
        self.started = True
        self._numbers = itertools.count()
        try:
            self.model = self.find_model()
            self.schedule = self.read_schedule()
        except (TargetError, TraceError) as error:
            self.model = ""
            log.error("%s", error)
        if self.master is not None:
            self.master.share_out()

    def stop(self) -> None:
        """After a test: what workers have not reported yet comes in. Results stay until the next test."""
        if self.master is not None:
            self.master.collect()
        self.schedule = None
        self.started = False

    def read_schedule(self) -> Schedule | None:
        """What to send in an open loop, None for Locust's usual loop. Raises TraceError."""
        return schedule_of(self.options) if "sessions_per_s" in self.options else None

    def find_model(self) -> str:
        """The model to ask for, from a server that answers. Raises TargetError, which says what to do."""
        host = (self.environment.host or "").rstrip("/").removesuffix("/v1")
        if not host:
            raise TargetError("which server? Name it with --host, for example --host http://127.0.0.1:8080")
        try:
            response = httpx.get(f"{host}/v1/models", headers=self.headers(), timeout=10, trust_env=False)
            listed = [str(model["id"]) for model in response.raise_for_status().json()["data"]]
        except (httpx.TransportError, httpx.InvalidURL) as error:
            hint = "start one with: trieway up; or name another with --host URL"
            raise TargetError(f"nothing answers at {host} ({error}); {hint}") from error
        except (httpx.HTTPStatusError, ValueError, KeyError, TypeError) as error:
            raise TargetError(f"{host} does not answer /v1/models as an OpenAI server does: {error}") from error
        if not listed and not self.options.model:
            raise TargetError(f"{host} serves no model yet; wait until a worker is ready, or give --model")
        return self.options.model or listed[0]

    def headers(self) -> dict[str, str]:
        key = self.options.api_key
        return {"authorization": f"Bearer {key}"} if key else {}

    def report(self) -> None:
        """At the end of the process: our own table, and the files that were asked for."""
        if self.started:  # ended by a signal in the middle of a test
            self.stop()
        results = self.metrics.results
        if isinstance(self.environment.runner, WorkerRunner):
            return
        if not results:
            if self.options.headless:
                self.environment.process_exit_code = 1
            return
        runs = _by_workload(results)
        console = Console() if Console().is_terminal else Console(width=180)
        console.print(comparison_table(runs, f"{self.environment.host}: {len(results)} requests by kind of traffic"))
        for remark in remarks(runs):
            console.print(remark, markup=False, soft_wrap=True)
        if self.options.results_csv:
            write_csv(Path(self.options.results_csv), runs[:1])
        if self.options.results_json:
            Path(self.options.results_json).write_bytes(
                as_json(runs, {"source": "locust", "host": self.environment.host})
            )


def register(*, open_loop: bool = False) -> None:
    """Adds our options, and a LocustRun to every environment that Locust makes."""
    events.init_command_line_parser.add_listener(_add_options)
    if open_loop:
        events.init_command_line_parser.add_listener(_add_open_loop_options)
    events.init.add_listener(_attach)


def _add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--model", default="", help="Model to ask for; the first that the server lists if not given")
    parser.add_argument("--api-key", default="", env_var="OPENAI_API_KEY", include_in_web_ui=False, help="Key to send")
    parser.add_argument("--seed", type=int, default=0, help="Decides the texts")
    parser.add_argument("--think-scale", type=float, default=1.0, help="Multiplies all think times; 0 removes them")
    parser.add_argument("--answer-timeout", type=float, default=600.0, help="Longest wait for one answer, in seconds")
    parser.add_argument("--no-stream", action="store_true", help="Ask for whole answers; TTFT and ITL are then unknown")
    parser.add_argument("--results-csv", default="", help="Write one row per request here, at the end")
    parser.add_argument("--results-json", default="", help="Write the summaries here, at the end")


def _add_open_loop_options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--trace", default="", help="Replay this trace with its own arrival times")
    parser.add_argument("--limit", type=int, default=0, help="Use only the first so many requests of the trace")
    parser.add_argument("--workload", default="sharegpt_like", help="Without a trace: the kind of traffic to generate")
    parser.add_argument("--sessions", type=int, default=100, help="Sessions to generate")
    parser.add_argument("--sessions-per-s", type=float, default=2.0, help="Sessions that start per second (Poisson)")
    parser.add_argument("--rate", type=float, default=1.0, help="Sessions arrive this many times as often")
    parser.add_argument("--max-in-flight", type=int, default=512, help="Most requests that a process sends at once")


def _attach(environment: Environment, **_: Any) -> None:
    run = LocustRun(environment)
    vars(environment)["trieway"] = run
    run.connect()
    if run.options.headless and not isinstance(environment.runner, WorkerRunner):
        try:
            run.find_model()
            run.read_schedule()
        except (TargetError, TraceError) as error:
            Console(stderr=True, soft_wrap=True).print(f"Error: {error}", markup=False, highlight=False)
            if run.master is not None:
                run.master.send_home(run.options.expect_workers)
            raise SystemExit(1) from error
    hooks = environment.events

    hooks.test_start.add_listener(lambda **_: run.start())
    hooks.test_stop.add_listener(lambda **_: run.stop())
    hooks.quitting.add_listener(lambda **_: run.report())
    hooks.report_to_master.add_listener(lambda client_id, data: run.metrics.send(data))
    hooks.worker_report.add_listener(lambda client_id, data: run.metrics.receive(data))
    if environment.web_ui is not None and environment.web_ui.app is not None:
        environment.web_ui.app.add_url_rule("/trieway", "trieway", lambda: _page(run))


def _page(run: LocustRun) -> tuple[bytes, int, dict[str, str]]:
    """`GET /trieway` of Locust's web UI: the summaries so far, as JSON."""
    body = as_json(_by_workload(run.metrics.results), {"host": run.environment.host})
    return body, 200, {"content-type": "application/json"}


def _by_workload(results: Sequence[RequestResult]) -> list[Run]:
    """All requests first, then each kind of traffic if there are several."""
    kinds = sorted({result.workload for result in results})
    groups = [("all", list(results))]
    if len(kinds) > 1:
        groups += [(kind, [result for result in results if result.workload == kind]) for kind in kinds]
    return [
        Run(name=name, results=group, workers=(), summary=summarize(group), complete=True) for name, group in groups
    ]
