"""The engine as SGLang's scheduler: what it conserves whatever is asked of it, and its rules one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from workers.simulated.cost_model import H200_QWEN3_8B, DecodeLoad, PrefillChunk
from workers.simulated.engine import IDLE, Engine, StepKind, StepResult
from workers.simulated.engine_config import EngineConfig
from workers.simulated.radix_cache import RadixCache
from workers.simulated.request import EngineRequest

CONFIGS = st.builds(
    EngineConfig,
    kv_capacity_tokens=st.sampled_from([64, 100, 300]),
    page_size=st.sampled_from([1, 2, 4, 16]),
    max_running_requests=st.sampled_from([1, 3, 50]),
    chunked_prefill_tokens=st.sampled_from([16, 30, 64]),
    max_prefill_tokens=st.just(64),
    schedule_policy=st.sampled_from(["fcfs", "lpm"]),
    clip_new_tokens=st.sampled_from([4, 4096]),
    overlap=st.booleans(),
)


@dataclass(frozen=True)
class Job:
    """A request whose prompt is a run of one token and then tokens of its own, so that prompts share prefixes."""

    shared: int
    own: tuple[int, ...]
    output_tokens: int
    namespace: str | None
    gap_s: float

    def request(self, rid: str, page_size: int) -> EngineRequest:
        return EngineRequest.of_tokens(
            rid=rid,
            prompt=[7] * self.shared + list(self.own),
            output=range(self.output_tokens),
            page_size=page_size,
            namespace=self.namespace,
        )


JOBS = st.lists(
    st.builds(
        Job,
        shared=st.integers(1, 30),
        own=st.lists(st.integers(0, 3), max_size=30).map(tuple),
        output_tokens=st.integers(0, 60),
        namespace=st.sampled_from([None, "salt"]),
        gap_s=st.sampled_from([0.0, 0.01, 0.3]),
    ),
    min_size=1,
    max_size=15,
)


def stored_pages(cache: RadixCache) -> int:
    total, stack = 0, list(cache._root.children.values())
    while stack:
        node = stack.pop()
        total += len(node.pages)
        stack.extend(node.children.values())
    return total


def check_conserved(engine: Engine) -> None:
    """Every page is free, in the tree or owned, and the counts are those of the tree itself."""
    memory = engine.memory
    assert stored_pages(memory.cache) == memory.cache.evictable_pages + memory.cache.locked_pages
    parts = (memory.free_pages, memory.owned_pages, memory.cache.evictable_pages, memory.cache.locked_pages)
    assert min(parts) >= 0
    assert sum(parts) == memory.capacity_pages


def check_released(engine: Engine) -> None:
    assert (engine.memory.owned_pages, engine.memory.cache.locked_pages) == (0, 0)


@dataclass
class Run:
    """Drives an engine through jobs as a caller with a clock does."""

    engine: Engine
    jobs: list[Job]
    fold: bool = False
    produced: dict[str, int] = field(default_factory=dict)
    first_s: dict[str, float] = field(default_factory=dict)
    finish_s: dict[str, float] = field(default_factory=dict)
    cached: dict[str, int] = field(default_factory=dict)
    accepted: dict[str, int] = field(default_factory=dict)

    def go(self) -> Run:
        arrivals = []
        at_s = 0.0
        for index, job in enumerate(self.jobs):
            at_s += job.gap_s
            arrivals.append((at_s, str(index), job))
        now_s = 0.0
        while arrivals or not self.engine.idle:
            while arrivals and (arrivals[0][0] <= now_s or self.engine.idle):
                now_s = max(now_s, arrivals[0][0])
                self._submit(*arrivals.pop(0))
            horizon_s = arrivals[0][0] if arrivals else math.inf
            result = self.engine.step(now_s, horizon_s if self.fold else None)
            now_s += result.duration_s
            self._record(result, now_s)
            check_conserved(self.engine)
        return self

    def _submit(self, at_s: float, rid: str, job: Job) -> None:
        try:
            self.engine.submit(job.request(rid, self.engine.config.page_size), at_s)
        except ValueError:
            return
        self.accepted[rid] = job.output_tokens

    def _record(self, result: StepResult, now_s: float) -> None:
        for output in result.outputs:
            self.produced[output.rid] = self.produced.get(output.rid, 0) + output.new_tokens
            self.cached[output.rid] = output.cached_tokens
            if output.first:
                self.first_s[output.rid] = now_s
            if output.finished:
                assert output.rid not in self.finish_s
                self.finish_s[output.rid] = now_s


@settings(max_examples=150, deadline=None)
@given(config=CONFIGS, jobs=JOBS)
def test_every_request_that_fits_makes_exactly_its_tokens_and_frees_everything(
    config: EngineConfig, jobs: list[Job]
) -> None:
    run = Run(Engine(config), jobs).go()
    assert run.produced == run.accepted
    assert run.finish_s.keys() == run.first_s.keys() == run.accepted.keys()
    check_released(run.engine)


@settings(max_examples=100, deadline=None)
@given(config=CONFIGS, jobs=JOBS)
def test_folding_decode_steps_changes_no_time_and_no_cached_token(config: EngineConfig, jobs: list[Job]) -> None:
    single, folded = Run(Engine(config), jobs).go(), Run(Engine(config), jobs, fold=True).go()
    assert folded.cached == single.cached
    assert folded.first_s == pytest.approx(single.first_s)
    assert folded.finish_s == pytest.approx(single.finish_s)


@settings(max_examples=40, deadline=None)
@given(config=CONFIGS, jobs=JOBS, fold=st.booleans())
def test_equal_calls_give_equal_results(config: EngineConfig, jobs: list[Job], fold: bool) -> None:
    one, two = Run(Engine(config), jobs, fold).go(), Run(Engine(config), jobs, fold).go()
    assert (one.finish_s, one.first_s, one.cached) == (two.finish_s, two.first_s, two.cached)


@settings(max_examples=150, deadline=None)
@given(config=CONFIGS, jobs=JOBS, plan=st.lists(st.tuples(st.integers(0, 14), st.integers(0, 4)), max_size=20))
def test_an_abort_at_any_moment_frees_everything_and_disturbs_nobody(
    config: EngineConfig, jobs: list[Job], plan: list[tuple[int, int]]
) -> None:
    engine = Engine(config)
    left = set()
    for index, job in enumerate(jobs):
        try:
            engine.submit(job.request(str(index), config.page_size), 0.0)
            left.add(str(index))
        except ValueError:
            continue
    for victim, steps in plan:
        for _ in range(steps):
            left -= {output.rid for output in engine.step(0.0).outputs if output.finished}
        assert engine.abort(str(victim)) == (str(victim) in left)
        left.discard(str(victim))
        check_conserved(engine)
    while left:
        left -= {output.rid for output in engine.step(0.0).outputs if output.finished}
    assert engine.idle
    assert engine.step(0.0) is IDLE
    check_released(engine)


def tokens(rid: str, prompt: range, output_tokens: int = 5, **more: object) -> EngineRequest:
    request = EngineRequest.of_tokens(rid=rid, prompt=prompt, output=[0] * output_tokens, page_size=1)
    return replace(request, **more)  # type: ignore[arg-type]


def test_a_long_prompt_is_read_in_chunks_that_cost_what_the_model_says_and_decoding_waits() -> None:
    engine = Engine(EngineConfig())
    engine.submit(tokens("short", range(100)), 0.0)
    engine.step(0.0)
    engine.submit(tokens("long", range(1000, 21_000)), 0.0)
    steps = [engine.step(0.0) for _ in range(4)]
    assert [step.kind for step in steps] == [StepKind.PREFILL] * 3 + [StepKind.DECODE]
    assert [step.prefill_tokens for step in steps[:3]] == [8192, 8192, 3616]
    assert [step.started for step in steps[:3]] == [["long"], [], []]
    assert steps[1].duration_s == H200_QWEN3_8B.prefill_s([PrefillChunk(8192, 8192)])
    assert [[output.rid for output in step.outputs] for step in steps] == [[], [], ["long"], ["short", "long"]]


def test_small_prompts_share_a_prefill_step() -> None:
    engine = Engine(EngineConfig())
    for index in range(5):
        engine.submit(tokens(str(index), range(index * 2000, index * 2000 + 2000)), 0.0)
    step = engine.step(0.0)
    assert step.prefill_tokens == 8192
    assert [output.rid for output in step.outputs] == ["0", "1", "2", "3"]
    assert engine.step(0.0).prefill_tokens == 10_000 - 8192


def test_a_prompt_can_be_matched_as_soon_as_a_chunk_of_it_is_read() -> None:
    engine = Engine(EngineConfig())
    engine.submit(tokens("long", range(20_000)), 0.0)
    engine.step(0.0)
    assert engine.memory.cache.peek(None, tokens("x", range(20_000)).pages, 20_000) == 8192
    for _ in range(2):
        engine.step(0.0)
    engine.submit(tokens("again", range(20_000)), 0.0)
    (output,) = engine.step(0.0).outputs
    assert (output.rid, output.cached_tokens) == ("again", 19_999)


@pytest.mark.parametrize(("page_size", "cached"), [(1, 1003), (64, 960)])
def test_the_next_turn_finds_prompt_and_answer_but_for_the_last_token_and_partial_page(
    page_size: int, cached: int
) -> None:
    engine = Engine(EngineConfig(page_size=page_size))
    prompt, answer = list(range(1000)), [5, 6, 7, 8]
    first = EngineRequest.of_tokens(rid="1", prompt=prompt, output=answer, page_size=page_size)
    engine.submit(first, 0.0)
    while not engine.idle:
        engine.step(0.0)
    follow = [*prompt, *answer, 9, 10]
    engine.submit(EngineRequest.of_tokens(rid="2", prompt=follow, output=[1], page_size=page_size), 0.0)
    (output,) = engine.step(0.0).outputs
    assert output.cached_tokens == cached


def test_an_equal_prompt_leaves_one_token_to_compute() -> None:
    engine = Engine(EngineConfig(page_size=4))
    for rid in ("1", "2"):
        request = EngineRequest.of_tokens(rid=rid, prompt=range(16), output=[0], page_size=4)
        engine.submit(request, 0.0)
        (output,) = engine.step(0.0).outputs
    assert output.cached_tokens == 12, "the last token cannot come from the cache, so neither can its page"


def test_namespaces_do_not_share_prompts() -> None:
    engine = Engine(EngineConfig())
    engine.submit(tokens("1", range(100), namespace=("lora", None)), 0.0)
    engine.step(0.0)
    engine.submit(tokens("2", range(100), namespace=("lora", "salt")), 0.0)
    assert engine.step(0.0).outputs[0].cached_tokens == 0


def test_when_memory_runs_out_the_request_with_least_output_is_retracted_and_still_finishes() -> None:
    config = EngineConfig(kv_capacity_tokens=100, new_token_ratio=0.0, new_token_ratio_min=0.0)
    engine = Engine(config)
    engine.submit(tokens("old", range(30), 60, max_new_tokens=60), 0.0)
    for _ in range(10):
        engine.step(0.0)
    engine.submit(tokens("young", range(100, 130), 25), 0.0)
    retracted: list[str] = []
    cached: dict[str, int] = {}
    produced = {"old": 10, "young": 0}
    while not engine.idle:
        step = engine.step(0.0)
        retracted += step.retracted
        for output in step.outputs:
            produced[output.rid] += output.new_tokens
            cached[output.rid] = output.cached_tokens
    assert retracted == ["young"]
    assert produced == {"old": 60, "young": 25}
    assert cached["young"] == 0, "what it finds when it comes back is not reported again"


def test_admission_keeps_room_for_what_running_requests_may_still_make() -> None:
    engine = Engine(EngineConfig(kv_capacity_tokens=1000, new_token_ratio=0.5, new_token_ratio_min=0.5))
    engine.submit(tokens("running", range(100), 800), 0.0)
    engine.step(0.0)
    engine.submit(tokens("waiting", range(500, 900), 200), 0.0)
    step = engine.step(0.0)
    assert step.kind is StepKind.DECODE, "400 + 200 tokens are not free beside 100 and half of 800"
    assert (engine.load().running, engine.load().waiting) == (1, 1)


def test_lpm_runs_the_longest_cached_prefix_first_and_fcfs_does_not() -> None:
    order = {}
    for policy in ("fcfs", "lpm"):
        engine = Engine(EngineConfig(schedule_policy=policy, max_running_requests=1))
        engine.submit(tokens("seed", range(200), 0), 0.0)
        engine.step(0.0)
        for rid, prompt in (("none", range(900, 950)), ("some", range(100)), ("most", range(190))):
            engine.submit(tokens(rid, prompt, 0), 0.0)
        order[policy] = [output.rid for _ in range(3) for output in engine.step(0.0).outputs]
    assert order == {"fcfs": ["none", "some", "most"], "lpm": ["most", "some", "none"]}


def test_lpm_lets_one_of_several_equal_new_prompts_go_first_so_that_the_others_hit() -> None:
    hits = {}
    for policy in ("fcfs", "lpm"):
        engine = Engine(EngineConfig(schedule_policy=policy, max_running_requests=2))
        for rid, prompt in (("a", range(100)), ("b", range(100)), ("other", range(500, 600))):
            engine.submit(tokens(rid, prompt, 0), 0.0)
        hits[policy] = {output.rid: output.cached_tokens for _ in range(2) for output in engine.step(0.0).outputs}
    assert hits == {"fcfs": {"a": 0, "b": 0, "other": 0}, "lpm": {"a": 0, "other": 0, "b": 99}}


def test_flush_is_refused_while_a_request_waits_or_runs() -> None:
    engine = Engine(EngineConfig())
    engine.submit(tokens("1", range(100), 2), 0.0)
    assert not engine.flush_cache()
    engine.step(0.0)
    assert not engine.flush_cache()
    engine.step(0.0)
    assert engine.memory.cache.evictable_pages == 101
    assert engine.flush_cache()
    assert engine.memory.cache.evictable_pages == 0


def test_load_counts_what_runs_what_waits_and_what_of_it_is_not_cached() -> None:
    engine = Engine(EngineConfig(max_running_requests=1))
    engine.submit(tokens("1", range(100), 50), 0.0)
    now_s = engine.step(0.0).duration_s
    engine.submit(tokens("2", range(150)), 0.0)
    engine.submit(tokens("3", range(700, 800)), 0.0)
    load = engine.load()
    assert (load.running, load.waiting) == (1, 2)
    assert (load.waiting_tokens, load.waiting_uncached_tokens) == (250, 150)
    assert (load.used_tokens, load.total_prefill_uncached_tokens) == (100, 100)
    for _ in range(45):
        now_s += engine.step(now_s).duration_s
    load = engine.load()
    assert load.used_tokens == 145
    assert load.gen_throughput == pytest.approx(1 / H200_QWEN3_8B.decode_step_s(DecodeLoad(1, 122, 122)), rel=0.01)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (tokens("1", range(90), 12), "exceed the KV capacity of 100 tokens"),
        (tokens("1", range(0), 1), "at least one prompt token"),
        (replace(tokens("1", range(50), 5), pages=(1, 2)), "2 pages do not name the 54 tokens"),
        (tokens("here", range(5)), "'here' is in use"),
    ],
)
def test_a_request_that_can_never_run_is_refused(request_: EngineRequest, message: str) -> None:
    engine = Engine(EngineConfig(kv_capacity_tokens=100))
    engine.submit(tokens("here", range(5)), 0.0)
    with pytest.raises(ValueError, match=message):
        engine.submit(request_, 0.0)
