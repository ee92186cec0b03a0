"""The simulated side of a comparison: on a virtual clock, or as a server of its own process for as long as it takes.

Called by commands.py.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from workers.calibrate.http_runner import ServerProblem
from workers.calibrate.measurement_file import Measurements
from workers.calibrate.server_facts import ServerFacts
from workers.calibrate.virtual_runner import VirtualRunner, requests_of
from workers.simulated.cost_file import write_cost_model
from workers.simulated.cost_model import CostModel

START_S = 20.0
"""A simulated server that has not said its port by then has failed."""


def virtual(theirs: Measurements, cost_model: CostModel) -> Measurements:
    """The same experiments on a virtual clock, with the limits of the server that was measured."""
    config = theirs.facts.engine_config()
    runner = VirtualRunner(cost_model, config)
    runs = tuple(
        runner.replay(run.experiment, requests_of(run.experiment.calls, config.page_size), None) for run in theirs.runs
    )
    return Measurements(facts=theirs.facts, date=theirs.date, runs=runs)


@contextlib.contextmanager
def server(facts: ServerFacts, cost_model: CostModel) -> Iterator[str]:
    """The URL of a simulated server with these limits, in a process of its own. Raises ServerProblem."""
    with tempfile.TemporaryDirectory() as folder:
        cost_file = Path(folder) / "cost.toml"
        write_cost_model(cost_model, cost_file)
        command = [
            sys.executable, "-m", "workers", "simulate", "--port", "0", "--cost-model", str(cost_file),
            "--kv-capacity-tokens", str(facts.kv_capacity_tokens), "--page-size", str(facts.page_size),
            "--max-running-requests", str(facts.max_running_requests),
            "--chunked-prefill-tokens", str(facts.chunked_prefill_tokens),
            "--context-length", str(facts.max_prompt_tokens + 8),
            "--schedule-policy", "lpm" if facts.schedule_policy == "lpm" else "fcfs",
            "--overlap" if facts.overlap else "--no-overlap",
        ]  # fmt: skip
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)  # noqa: S603 - our own command
        try:
            yield _url(process)
        finally:
            process.terminate()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()


def _url(process: subprocess.Popen[str]) -> str:
    """Reads the log until the server says where it listens."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if " on http://" in line:
            return "http://" + line.split(" on http://")[1].split()[0]
    raise ServerProblem(f"the simulated server did not start: {''.join(lines)[-500:]}")
