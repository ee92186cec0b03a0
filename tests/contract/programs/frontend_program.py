"""A program in SGLang's frontend language, run by tests where sglang is installed: frontend_program.py URL.

Prints one JSON object of what came back. It talks to whatever answers at URL as if it were one SGLang server.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import sglang as sgl

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "colour": {"enum": ["red", "blue"]}},
        "required": ["ok", "colour"],
    }
)
QUESTION = "What is a radix tree good for, when prompts begin alike? " * 8


@sgl.function
def conversation(s: Any, question: str) -> None:
    s += sgl.system("You are a careful assistant.")
    for turn in range(3):
        s += sgl.user(f"{turn}: {question}")
        s += sgl.assistant(sgl.gen(f"answer{turn}", max_tokens=8, ignore_eos=True))


@sgl.function
def forked(s: Any) -> None:
    s += QUESTION * 5
    s.sync()  # fork sends the common prefix ahead only if its text has been put together by then
    branches = s.fork(3)
    for number, branch in enumerate(branches):
        branch += f"Tip {number}:"
        branch += sgl.gen("tip", max_tokens=4, ignore_eos=True)
    s += "\n".join(branch["tip"] for branch in branches)
    s["cached"] = [branch.get_meta_info("tip")["cached_tokens"] for branch in branches]
    s += sgl.gen("summary", max_tokens=4, ignore_eos=True)


@sgl.function
def constrained(s: Any) -> None:
    s += "A number: " + sgl.gen("number", max_tokens=16, regex="[0-9]{4}")
    s += "A whole number: " + sgl.gen_int("whole", max_tokens=8)
    s += "An object: " + sgl.gen("object", max_tokens=40, json_schema=SCHEMA)


@sgl.function
def chosen(s: Any) -> None:
    s += "The sky is " + sgl.gen("colour", choices=["blue", "green"])


def done(state: Any) -> Any:
    """`state` once its program has ended: `run` returns before, and the next one would run beside it."""
    state.sync()
    return state


def run(url: str) -> dict[str, Any]:
    backend = sgl.RuntimeEndpoint(url)
    sgl.set_default_backend(backend)
    sgl.flush_cache(backend)
    talk = done(conversation.run(question=QUESTION))
    fork = done(forked.run())
    limits = done(constrained.run())
    stream = conversation.run(question="Go on.", stream=True)
    pieces = list(stream.text_iter("answer0"))
    batch = conversation.run_batch([{"question": f"Number {number}?"} for number in range(4)], num_threads=4)
    return {
        "model": backend.get_model_name(),
        "version": backend.get_server_info()["version"],
        "answers": [talk[f"answer{turn}"] for turn in range(3)],
        "cached": [talk.get_meta_info(f"answer{turn}")["cached_tokens"] for turn in range(3)],
        "fork": {"cached": fork["cached"], "summary": fork["summary"]},
        "number": limits["number"],
        "whole": limits["whole"],
        "object": limits["object"],
        "streamed": ["".join(pieces), stream["answer0"]],
        "batch": [state["answer2"] for state in batch],
        "chosen": done(chosen.run())["colour"],
    }


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1])))
