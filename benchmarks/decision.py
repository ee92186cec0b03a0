"""What a decision, and a request in all, cost a policy, without HTTP. Prints microseconds and ratios.

    python -m benchmarks.decision [--workers 8] [--stored 2000 20000] [--prompt-bytes 4000 40000]
    python -m benchmarks.decision --all-policies [--workers 4]
    python -m benchmarks.decision --scale

The first: `select` of expected_ttft beside prefix_match's, over prompts that share prefixes with what is stored, with a
queue on every worker. `index` is the share that matching takes; the decision beside the index is the rest. The second:
every policy, `select` and all that it is told of a request. The third: the default policy's decision by how many
workers there are and how many prompt blocks they hold together, and the memory of a block. Each figure is the best of
several rounds in which the policies take turns, so that a busy machine slows all alike. Not here: parsing and hashing
(benchmarks/data_path).
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import perf_counter

from router.policies import POLICIES, Policy, PolicyConfigs, build_policy
from router.policies.expected_ttft import ExpectedTtft, ExpectedTtftConfig
from router.prefix.block_hash import chain
from router.records import Decision, Dispatched, Finished, FirstToken, Outcome, RoutingRequest
from router.types import LoadReport, PromptKey, Reason, RequestId, WorkerId, WorkerJoined

BLOCK_BYTES = 256
BYTES_PER_TOKEN = 4.0
QUEUED = 4
ROUNDS = 15


@dataclass
class View:
    """A worker as a policy sees it."""

    id: WorkerId
    in_flight: int = QUEUED
    load: LoadReport | None = None


def request(number: int, prompt_bytes: int, rng: Random) -> RoutingRequest:
    """A prompt of which the first half is one of 64 shared ones."""
    shared = number % 64
    head = Random(shared).randbytes(prompt_bytes // 2)  # seeded: the same 64 heads again and again
    data = head + rng.randbytes(prompt_bytes - len(head))
    key = PromptKey(
        blocks=chain(data, BLOCK_BYTES, 7),
        unit_tokens=BLOCK_BYTES / BYTES_PER_TOKEN,
        prompt_tokens=prompt_bytes / BYTES_PER_TOKEN,
    )
    return RoutingRequest(
        request_id=RequestId(f"r{number}"),
        endpoint="/v1/chat/completions",
        key=key,
        at_s=number * 0.01,
        stream=True,
    )


def fill(policy: Policy, workers: Sequence[View], stored: int, prompt_bytes: int) -> None:
    """`stored` prompts that have been served, and QUEUED that wait on every worker."""
    rng = Random(1)
    for worker in workers:
        policy.observe(WorkerJoined(worker=worker.id, at_s=0.0))
    for number in range(stored + QUEUED * len(workers)):
        asked = request(number, prompt_bytes, rng)
        home = workers[number % len(workers)].id
        at_s = asked.at_s
        policy.observe(
            Dispatched(request=asked, decision=Decision(worker=home, reason=Reason.RANDOM), at_s=at_s)
        )
        if number < stored:
            policy.observe(FirstToken(request_id=asked.request_id, worker=home, ttft_s=0.01, at_s=at_s + 0.005))
            outcome = Outcome(
                request_id=asked.request_id, endpoint=asked.endpoint, at_s=at_s, status=200, e2e_s=0.01,
                completion_tokens=100,
            )  # fmt: skip
            policy.observe(
                Finished(request_id=asked.request_id, worker=home, outcome=outcome, at_s=at_s + 0.01)
            )


def best_us(rounds: int, tasks: Sequence[Callable[[], None]], calls: int) -> list[float]:
    """Microseconds per call of each task, the best of `rounds` in which they take turns."""
    best = [float("inf")] * len(tasks)
    for _ in range(rounds):
        for index, task in enumerate(tasks):
            start_s = perf_counter()
            task()
            best[index] = min(best[index], (perf_counter() - start_s) / calls * 1e6)
    return best


def measure(workers: Sequence[View], stored: int, prompt_bytes: int) -> tuple[float, float, float]:
    """Microseconds of a decision by expected_ttft, of the matching within it, and of one by prefix_match."""
    policies = [build_policy(name, PolicyConfigs(), Random(1)) for name in ("expected_ttft", "prefix_match")]
    for policy in policies:
        fill(policy, workers, stored, prompt_bytes)
    asked = [request(10**6 + number, prompt_bytes, Random(number)) for number in range(200)]
    ours = policies[0]
    if not isinstance(ours, ExpectedTtft):
        raise TypeError("the registry's expected_ttft is another policy")
    images = ours.images()

    def selecting(policy: Policy) -> Callable[[], None]:
        def task() -> None:
            for one in asked:
                policy.select(one, workers)

        return task

    def matching() -> None:
        for one in asked:
            for worker in workers:
                images[worker.id].match(list(one.key.blocks))

    ours_us, match_us, theirs_us = best_us(
        ROUNDS, [selecting(policies[0]), matching, selecting(policies[1])], len(asked)
    )
    return ours_us, match_us, theirs_us


def in_all(workers: Sequence[View], stored: int, prompt_bytes: int) -> dict[str, float]:
    """Microseconds of a request, by policy: its decision and its three events, with QUEUED waiting on every worker."""
    policies = {name: build_policy(name, PolicyConfigs(), Random(1)) for name in POLICIES}
    for policy in policies.values():
        fill(policy, workers, stored, prompt_bytes)
    numbers = iter(range(10**6, 10**9))

    def serving(policy: Policy) -> Callable[[], None]:
        asked = [request(next(numbers), prompt_bytes, Random(number)) for number in range(200 * ROUNDS)]
        rounds = iter([asked[start : start + 200] for start in range(0, len(asked), 200)])

        def task() -> None:
            for one in next(rounds):
                decision = policy.select(one, workers)
                policy.observe(Dispatched(request=one, decision=decision, at_s=one.at_s))
                policy.observe(
                    FirstToken(
                        request_id=one.request_id, worker=decision.worker, ttft_s=0.005, at_s=one.at_s + 0.005
                    )
                )
                outcome = Outcome(
                    request_id=one.request_id, endpoint=one.endpoint, at_s=one.at_s, status=200, e2e_s=0.01,
                    completion_tokens=100, prompt_tokens=int(one.key.prompt_tokens),
                    cached_tokens=int(decision.match_tokens),
                )  # fmt: skip
                policy.observe(
                    Finished(
                        request_id=one.request_id, worker=decision.worker, outcome=outcome, at_s=one.at_s + 0.01
                    )
                )

        return task

    return dict(zip(policies, best_us(ROUNDS, [serving(policy) for policy in policies.values()], 200), strict=True))


SCALE_WORKERS = (8, 64, 256)
SCALE_BLOCKS = (10_000, 100_000, 1_000_000)
SCALE_PROMPT_BYTES = 4000


def resident_bytes() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def at_scale(workers: Sequence[View], blocks: int) -> tuple[float, int, float]:
    """Microseconds of a decision while the workers hold so many blocks together and QUEUED requests wait on each; how
    many they hold exactly; and how many bytes of memory each of those has taken."""
    policy = ExpectedTtft(ExpectedTtftConfig(capacity_tokens=10**9, capacity_blocks=10**7), Random(1))
    for worker in workers:
        policy.observe(WorkerJoined(worker=worker.id, at_s=0.0))
    before = resident_bytes()
    rng, number, held = Random(1), 0, 0
    while held < blocks:
        for _ in range(max(1, min(1000, (blocks - held) // 16))):
            asked, worker = request(number, SCALE_PROMPT_BYTES, rng), workers[number % len(workers)]
            policy.observe(
                Dispatched(request=asked, decision=Decision(worker=worker.id, reason=Reason.RANDOM), at_s=asked.at_s)
            )
            outcome = Outcome(
                request_id=asked.request_id, endpoint=asked.endpoint, at_s=asked.at_s, status=200, e2e_s=0.01,
                completion_tokens=100,
            )  # fmt: skip
            policy.observe(
                Finished(request_id=asked.request_id, worker=worker.id, outcome=outcome, at_s=asked.at_s + 0.005)
            )
            number += 1
        held = sum(policy.index_blocks().values())
    each = (resident_bytes() - before) / held
    for _ in range(QUEUED * len(workers)):
        asked, worker = request(number, SCALE_PROMPT_BYTES, rng), workers[number % len(workers)]
        policy.observe(
            Dispatched(request=asked, decision=Decision(worker=worker.id, reason=Reason.RANDOM), at_s=asked.at_s)
        )
        number += 1
    questions = [request(10**7 + index, SCALE_PROMPT_BYTES, Random(index)) for index in range(100)]

    def deciding() -> None:
        for one in questions:
            policy.select(one, workers)

    return best_us(ROUNDS, [deciding], len(questions))[0], held, each


def scale() -> None:
    """Print the table of `at_scale`."""
    out = sys.stdout.write
    out(f"A decision of expected_ttft about a prompt of {SCALE_PROMPT_BYTES} bytes:\n")
    out("workers | blocks held | us per decision | us per worker | bytes per block held\n")
    for blocks in SCALE_BLOCKS:
        for count in SCALE_WORKERS:
            us, held, each = at_scale([View(WorkerId(f"w{index}")) for index in range(count)], blocks)
            out(f"{count:7} | {held:11} | {us:15.1f} | {us / count:13.2f} | {each:20.0f}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--stored", type=int, nargs="+", default=[1000, 10_000], help="prompts stored before")
    parser.add_argument("--prompt-bytes", type=int, nargs="+", default=[4000, 40_000])
    parser.add_argument("--all-policies", action="store_true", help="a request in all, for every policy")
    parser.add_argument("--scale", action="store_true", help="a decision by workers and by blocks that they hold")
    options = parser.parse_args(arguments)
    if options.scale:
        scale()
        return
    workers = [View(WorkerId(f"w{index}")) for index in range(options.workers)]
    out = sys.stdout.write
    if options.all_policies:
        for prompt_bytes in options.prompt_bytes:
            out(f"{prompt_bytes} bytes, {options.stored[0]} stored: policy | us per request | above round_robin\n")
            costs = in_all(workers, options.stored[0], prompt_bytes)
            for name, cost in costs.items():
                out(f"{name:24} | {cost:6.1f} | {cost - costs['round_robin']:6.1f}\n")
        return
    out("prompt bytes | stored | expected_ttft us | index us | beside the index us | prefix_match us | ratio\n")
    for prompt_bytes in options.prompt_bytes:
        for stored in options.stored:
            ours, index, theirs = measure(workers, stored, prompt_bytes)
            out(
                f"{prompt_bytes:12} | {stored:6} | {ours:16.1f} | {index:8.1f} | {ours - index:19.1f} | "
                f"{theirs:15.1f} | {ours / theirs:5.2f}\n"
            )


if __name__ == "__main__":
    main()
