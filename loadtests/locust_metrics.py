"""Answers as Locust statistics: the usual row per kind of traffic, and rows of TTFT, ITL, tokens/s and cached share.

Only the usual row counts as a request; the others have their own entries and stay out of Locust's totals, so that
rates mean requests. Results are also kept whole, from every Locust process, for our own table. Called by users.py and
locust_run.py.
"""

# mypy: allow-untyped-calls
# Locust annotates its functions only in part.

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec
from locust.env import Environment

from loadtests.answer import Answer
from loadtests.load_request import CHAT_PATH, LoadRequest
from loadtests.measures import RequestResult
from loadtests.results import result_of, settle_cached_tokens

KEPT_RESULTS = 200_000
"""Older results are dropped beyond this, some 300 MB with answers of 100 tokens."""
TTFT, ITL, SPEED, CACHED = "TTFT ms", "ITL us", "tok/s", "cached %"
"""ITL is the mean of an answer, in microseconds because Locust rounds percentiles to whole numbers."""


class CallFailed(Exception):
    """What Locust lists under failures: the kind of failure, then the server's words."""


class LocustMetrics:
    """Of one Locust process. `send` and `receive` are for its distributed mode. `count` is of all calls that ended
    since the start of the test, here and in processes that report here.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._results: deque[RequestResult] = deque(maxlen=KEPT_RESULTS)
        self._unsent: list[RequestResult] = []
        self._start_s = time.monotonic()
        self._open = True
        self.count = 0

    def restart(self) -> None:
        """A new test starts: forget the last one."""
        self._results.clear()
        self._unsent.clear()
        self.count = 0
        self._open = True
        self._start_s = time.monotonic()

    def close(self) -> None:
        """Answers that end from now on are not counted, until `restart`."""
        self._open = False

    @property
    def results(self) -> Sequence[RequestResult]:
        """All that ended since the start of the test, in this process and in those that report to it."""
        return settle_cached_tokens(list(self._results))

    def record(self, request: LoadRequest, answer: Answer, *, lag_s: float = 0.0) -> None:
        """Counts one answer, everywhere."""
        if not self._open:
            return
        result = result_of(request, answer, request.session_id, start_s=answer.sent_s - self._start_s, lag_s=lag_s)
        self._results.append(result)
        self.count += 1
        self._unsent.append(result)
        failed = None if answer.error is None else CallFailed(f"{answer.error.value}: {answer.error_detail}")
        self._environment.events.request.fire(
            request_type="POST",
            name=f"{CHAT_PATH} {request.workload}",
            response_time=answer.e2e_s * 1000,
            response_length=len(answer.text.encode()),
            exception=failed,
            context={},
            response=None,
        )
        if failed is None:
            self._log_rows(request.workload, result)

    def send(self, data: dict[str, Any]) -> None:
        """On a Locust worker: adds what is new to its report to the master."""
        data["trieway"] = msgspec.to_builtins(self._unsent)
        self._unsent.clear()
        self._results.clear()

    def receive(self, data: dict[str, Any]) -> None:
        """On the Locust master: takes a worker's report."""
        received = msgspec.convert(data.get("trieway", []), list[RequestResult])
        self._results.extend(received)
        self.count += len(received)

    def _log_rows(self, workload: str, result: RequestResult) -> None:
        if result.ttft_s is not None:
            self._log(TTFT, workload, result.ttft_s * 1000)
        if result.gaps_s:
            self._log(ITL, workload, 1e6 * sum(result.gaps_s) / len(result.gaps_s))
        if result.completion_tokens:
            self._log(SPEED, workload, result.completion_tokens / result.e2e_s)
        if result.prompt_tokens:
            self._log(CACHED, workload, 100 * (result.cached_tokens or 0) / result.prompt_tokens)

    def _log(self, kind: str, workload: str, value: float) -> None:
        # Locust calls the value a time in ms and types it as a whole number, but it keeps fractions in its means.
        self._environment.stats.get(workload, kind).log(value, 0)  # type: ignore[arg-type]
