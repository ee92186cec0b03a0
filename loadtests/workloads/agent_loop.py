"""An agent with tools: one task, then call after call whose prompt grows by a tool call and its result.

All sessions share instructions and tool definitions; each session's own part grows fast, with short pauses while a
tool runs. Registered in __init__.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from loadtests.load_request import Json, LoadRequest
from loadtests.workloads.base import rng_of
from loadtests.workloads.prose import SUBJECTS, TOPICS, prose, question, sentence

TOOL_NAMES = ("search", "read_record", "update_record", "send_message", "list_bookings", "calculate", "open_ticket")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLoop:
    """`steps` is a mean: sessions have from one to twice that less one. Sizes in tokens; a tool runs for `tool_s`
    seconds on average (exponential).
    """

    seed: int = 0
    steps: int = 8
    system_tokens: int = 1200
    task_tokens: int = 150
    result_tokens: int = 400
    output_tokens: int = 60
    tool_s: float = 1.0

    def session(self, rng: Random, index: int) -> Sequence[LoadRequest]:
        tools = self._tools()
        history: list[Json] = [
            {"role": "system", "content": prose(rng_of(self.seed, "system"), self.system_tokens)},
            {"role": "user", "content": f"{question(rng)} {prose(rng, self.task_tokens)}"},
        ]
        requests = []
        for turn in range(rng.randint(1, max(1, 2 * self.steps - 1))):
            requests.append(
                LoadRequest(
                    session_id=f"agent-loop-{index}",
                    turn=turn,
                    arrival_s=0.0,
                    gap_s=rng.expovariate(1 / self.tool_s) if turn and self.tool_s > 0 else 0.0,
                    messages=tuple(history),
                    tools=tools,
                    max_tokens=self.output_tokens,
                    workload="agent_loop",
                )
            )
            history.extend(self._step(rng, index, turn))
        return requests

    def _step(self, rng: Random, index: int, turn: int) -> list[Json]:
        """The assistant's tool call and the tool's result."""
        call_id = f"call-{index}-{turn}"
        name = rng.choice(TOOL_NAMES)
        arguments = f'{{"query": "{rng.choice(TOPICS)}", "number": {rng.randrange(10_000)}}}'
        call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        return [
            {"role": "assistant", "content": sentence(rng), "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call_id, "name": name, "content": prose(rng, self.result_tokens)},
        ]

    def _tools(self) -> list[Json]:
        rng = rng_of(self.seed, "tools")
        return [
            {
                "type": "function",
                "function": {
                    "name": name,
                    "description": f"{sentence(rng)} {sentence(rng)}",
                    "parameters": {
                        "type": "object",
                        "properties": {
                            "query": {"type": "string", "description": f"Names {rng.choice(SUBJECTS)}."},
                            "number": {"type": "integer", "description": sentence(rng)},
                        },
                        "required": ["query"],
                    },
                },
            }
            for name in TOOL_NAMES
        ]
