"""Locust users: one class per behaviour. Each plays sessions of a workload, turn after turn.

A task is one turn; Locust's wait between tasks is the think time before the next. Answers are streamed, and what the
server said becomes part of the history of a chat. Used by locustfile.py.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import ClassVar

from locust import User, task
from locust.env import Environment
from locust.exception import StopUser

from loadtests.load_request import LoadRequest, with_answers
from loadtests.locust_client import GeventChatClient
from loadtests.locust_run import LocustRun
from loadtests.workloads import (
    AgentLoop,
    FewShot,
    Mix,
    MultiTurn,
    Rag,
    SharedPrefix,
    ShareGptLike,
    Uniform,
    Workload,
    session_of,
)
from loadtests.workloads.base import rng_of


class ChatUser(User):
    """A client that plays one session after another of its `kind`, with a pause of `pause_s` on average between."""

    abstract = True
    kind: ClassVar[type[Workload]]
    pause_s: ClassVar[float] = 3.0

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._run = LocustRun.of(environment)
        self._options = self._run.options
        self._turns: deque[LoadRequest] = deque()
        self._said: dict[int, str] = {}
        self._rng = Random()
        self._client = GeventChatClient(
            self.host or "", timeout_s=self._options.answer_timeout, headers=self._run.headers()
        )

    def wait_time(self) -> float:
        """Seconds before the next turn: its think time, or a pause (exponential) before the next session."""
        if self._turns:
            return self._turns[0].gap_s * float(self._options.think_scale)
        scale = self.pause_s * float(self._options.think_scale)
        return self._rng.expovariate(1 / scale) if scale > 0 else 0.0

    @task
    def turn(self) -> None:
        """Sends the next turn of the session, or the first of a new one."""
        if not self._run.model:
            raise StopUser
        if not self._turns:
            self._begin()
        request = with_answers(self._turns.popleft(), self._said)
        body = request.body(self._run.model, stream=not self._options.no_stream)
        answer = self._client.call(body, session_id=request.session_id)
        self._said[len(request.messages)] = answer.text
        self._run.metrics.record(request, answer)

    def on_stop(self) -> None:
        """Closes the connection."""
        self._client.close()

    def _begin(self) -> None:
        number = self._run.next_session()
        workload = self.kind(seed=self._options.seed)  # type: ignore[call-arg]  # every workload has a seed
        self._rng = rng_of(self._options.seed, "pauses", number)
        self._turns.extend(session_of(workload, number))
        self._said = {}


class SharedPromptUser(ChatUser):
    """One question to one of a few applications with long system prompts."""

    kind = SharedPrefix
    weight = 3


class ChattingUser(ChatUser):
    """A conversation of several turns with a growing history."""

    kind = MultiTurn
    weight = 4
    pause_s = 10.0


class AgentUser(ChatUser):
    """An agent that calls tools in a loop."""

    kind = AgentLoop
    weight = 3


class DocumentUser(ChatUser):
    """Questions on a long document."""

    kind = Rag
    weight = 2
    pause_s = 8.0


class FewShotUser(ChatUser):
    """A program that sends cases of a task with worked examples."""

    kind = FewShot
    weight = 2


class OneOffUser(ChatUser):
    """Unrelated prompts that no cache can help."""

    kind = Uniform
    weight = 1


class ShareGptUser(ChatUser):
    """Conversations with lengths like ShareGPT's, for comparison with benchmarks that use it."""

    kind = ShareGptLike
    weight = 1
    pause_s = 10.0


class MixedUser(ChatUser):
    """A client of many habits: each session is of another kind."""

    kind = Mix
    weight = 1
