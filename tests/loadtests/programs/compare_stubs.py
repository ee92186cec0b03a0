"""A comparison over stub servers as a process of its own, for tests that interrupt or kill it.

Arguments: path of stub_server.py, mode of the router.
"""

from __future__ import annotations

import sys

from loadtests.comparison import Run, Traffic, compare
from loadtests.fleet import FleetPlan
from loadtests.interrupt import Interrupted, run_until_interrupted
from loadtests.measures import RequestResult
from loadtests.workloads import Uniform, generate


class Quiet:
    def begin(self, name: str, requests: int) -> None:
        print("begin", name, requests, flush=True)

    def result(self, result: RequestResult) -> None:
        print("result", flush=True)


def main() -> None:
    stub, mode = sys.argv[1:]
    plan = FleetPlan(
        workers=2,
        worker_command=(sys.executable, stub, "worker"),
        router_command=(sys.executable, stub, "router", "--mode", mode),
    )
    runs: list[Run] = []
    traffic = Traffic(requests=generate(Uniform(), sessions=5, sessions_per_s=1000.0))
    try:
        run_until_interrupted(compare(traffic, ["round_robin"], plan, Quiet(), runs))
    except Interrupted:
        print("interrupted", [(run.complete, len(run.results)) for run in runs], flush=True)


if __name__ == "__main__":
    main()
