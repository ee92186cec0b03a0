"""Entry for Locust with open-loop arrivals: `locust -f loadtests/locustfile_open.py --host URL --trace FILE`.

Without a trace, conversations as long as ShareGPT's start in a Poisson process (`--sessions-per-s`); `--workload` names
other kinds. The shape decides how long the test takes, so Locust's own -u, -r and -t do not count here.
"""

from __future__ import annotations

from loadtests.locust_arrivals import Arrivals, ArrivalUser
from loadtests.locust_run import register

__all__ = ["ArrivalUser", "Arrivals"]

register(open_loop=True)
