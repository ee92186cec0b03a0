"""Open-loop arrivals in Locust: a load shape, and the one user per process that sends what is due.

Locust's own users wait for answers before they go on, so a slow server gets less load. Here sessions start when the
schedule says, however slow the answers. Used by locustfile_open.py. Not here: the schedule (locust_schedule.py).
"""

# mypy: allow-untyped-calls
# Locust annotates its functions only in part.

from __future__ import annotations

import time

import gevent  # type: ignore[import-untyped]  # has no stubs of its own
from gevent.pool import Group  # type: ignore[import-untyped]
from locust import LoadTestShape, User, task
from locust.env import Environment
from locust.runners import MasterRunner

from loadtests.locust_client import GeventChatClient
from loadtests.locust_run import LocustRun
from loadtests.locust_schedule import Schedule, Session


class ArrivalUser(User):
    """Plays its process's share of the schedule, each session in a greenlet of its own."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._run = LocustRun.of(environment)
        options = self._run.options
        self._client = GeventChatClient(
            self.host or "",
            timeout_s=options.answer_timeout,
            headers=self._run.headers(),
            concurrency=options.max_in_flight,
        )
        self._sessions = Group()
        self._start_s = 0.0

    @task
    def play(self) -> None:
        """Starts every session at its time and waits for all of them; then idles until the shape ends the test."""
        schedule, share = self._run.schedule, self._run.share
        if self._run.model and schedule is not None and share is not None:
            self._start_s = time.monotonic()
            for session in schedule.share(share):
                self._sleep_until(session.starts_s)
                self._sessions.start(gevent.Greenlet(self._play_session, schedule, session))
            self._sessions.join()
        while True:
            gevent.sleep(1.0)

    def on_stop(self) -> None:
        """Ends what is still in flight and closes the connections."""
        self._sessions.kill()
        self._client.close()

    def _play_session(self, schedule: Schedule, session: Session) -> None:
        ended_s = 0.0
        for number, turn in enumerate(session.turns):
            due_s = schedule.due_s(turn, ended_s) if number else session.starts_s
            self._sleep_until(due_s)
            request = schedule.call(turn, session.name)
            body = request.body(self._run.model, stream=not self._run.options.no_stream)
            answer = self._client.call(body, session_id=session.name)
            ended_s = self._now_s()
            self._run.metrics.record(request, answer, lag_s=max(0.0, answer.sent_s - self._start_s - due_s))

    def _now_s(self) -> float:
        return time.monotonic() - self._start_s

    def _sleep_until(self, at_s: float) -> None:
        wait_s = at_s - self._now_s()
        if wait_s > 0:
            gevent.sleep(wait_s)


class Arrivals(LoadTestShape):
    """One ArrivalUser per Locust process until every answer is in; gives up an answer's timeout after the last
    arrival, so that a lost process cannot hold the test.
    """

    def tick(self) -> tuple[int, float] | None:
        """What Locust asks once a second: (users, users started per second), None at the end."""
        if self.runner is None:
            return None
        run = LocustRun.of(self.runner.environment)
        schedule = run.schedule
        if schedule is None:
            return None if run.started else self._users()
        late = self.get_run_time() > schedule.last_start_s + run.options.answer_timeout
        return None if late or run.metrics.count >= schedule.requests else self._users()

    def _users(self) -> tuple[int, float]:
        processes = self.runner.worker_count if isinstance(self.runner, MasterRunner) else 1
        return processes, float(processes)
