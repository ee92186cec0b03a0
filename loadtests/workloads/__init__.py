"""Seeded generators of chat traffic, one file per behaviour. This registry is the only list of them.

A new workload is its file, one line here, and its test.
"""

from __future__ import annotations

from loadtests.workloads.agent_loop import AgentLoop
from loadtests.workloads.base import Workload, generate, session_of
from loadtests.workloads.few_shot import FewShot
from loadtests.workloads.mix import Blend, Mix
from loadtests.workloads.multi_turn import MultiTurn
from loadtests.workloads.rag import Rag
from loadtests.workloads.shared_prefix import SharedPrefix
from loadtests.workloads.sharegpt_like import ShareGptLike
from loadtests.workloads.uniform import Uniform

WORKLOADS: dict[str, type[Workload]] = {
    "shared_prefix": SharedPrefix,
    "multi_turn": MultiTurn,
    "agent_loop": AgentLoop,
    "rag": Rag,
    "few_shot": FewShot,
    "sharegpt_like": ShareGptLike,
    "uniform": Uniform,
    "mix": Mix,
}

__all__ = ["WORKLOADS", "AgentLoop", "Blend", "FewShot", "Mix", "MultiTurn", "Rag", "ShareGptLike", "SharedPrefix",
           "Uniform", "Workload", "generate", "session_of"]  # fmt: skip
