"""A cache that was emptied behind our back is noticed; one that lost some prefixes is not."""

from __future__ import annotations

from router.fleet.collapse import MISSES_IN_A_ROW, CollapseDetector
from router.records import Decision, Finished, Outcome
from router.types import CacheCleared, Reason, RequestId, WorkerId, WorkerLeft

W = WorkerId("w")


class Watched:
    def __init__(self) -> None:
        self.emptied: list[WorkerId] = []
        self.detector = CollapseDetector(self.emptied.append)

    def finish(self, expected: float, cached: int | None, at_s: float = 1.0, worker: WorkerId = W) -> None:
        decision = Decision(worker=worker, reason=Reason.PREFIX, match_tokens=expected)
        outcome = Outcome(
            request_id=RequestId("r"), endpoint="/generate", at_s=at_s, status=200, e2e_s=1.0, decision=decision,
            cached_tokens=cached,
        )  # fmt: skip
        self.detector.observe(Finished(request_id=RequestId("r"), worker=worker, outcome=outcome, at_s=at_s + 1))


def test_long_matches_that_all_find_nothing_mean_an_empty_cache() -> None:
    watched = Watched()
    for _ in range(MISSES_IN_A_ROW):
        assert watched.emptied == []
        watched.finish(1000, 3)

    assert watched.emptied == [W]


def test_one_match_that_is_found_proves_the_cache_is_there() -> None:
    watched = Watched()
    for _ in range(MISSES_IN_A_ROW - 1):
        watched.finish(1000, 0)
    watched.finish(1000, 100)
    for _ in range(MISSES_IN_A_ROW - 1):
        watched.finish(1000, 0)

    assert watched.emptied == []


def test_short_matches_other_workers_and_silence_say_nothing() -> None:
    watched = Watched()
    for _ in range(MISSES_IN_A_ROW - 1):
        watched.finish(1000, 0)
    for _ in range(10):
        watched.finish(100, 0)
        watched.finish(1000, None)
    watched.finish(1000, 0, worker=WorkerId("other"))

    assert watched.emptied == []


def test_predictions_from_before_a_flush_do_not_count_after_it() -> None:
    watched = Watched()
    watched.detector.observe(CacheCleared(worker=W, at_s=5.0))
    for _ in range(10):
        watched.finish(1000, 0, at_s=4.0)
    assert watched.emptied == []

    for _ in range(MISSES_IN_A_ROW):
        watched.finish(1000, 0, at_s=6.0)
    assert watched.emptied == [W]


def test_a_worker_that_left_is_forgotten() -> None:
    watched = Watched()
    for _ in range(MISSES_IN_A_ROW - 1):
        watched.finish(1000, 0)
    watched.detector.observe(WorkerLeft(worker=W, at_s=2.0))
    watched.finish(1000, 0)

    assert watched.emptied == []


def test_a_worker_that_goes_on_finding_nothing_is_said_to_be_emptied_ever_less_often() -> None:
    watched = Watched()
    said: list[int] = []
    for number in range(8 * MISSES_IN_A_ROW):
        watched.finish(1000, 0, at_s=2.0 + number)
        if len(watched.emptied) > len(said):
            said.append(number + 1)
            watched.detector.observe(CacheCleared(worker=W, at_s=2.0 + number))

    assert said == [MISSES_IN_A_ROW, 3 * MISSES_IN_A_ROW, 7 * MISSES_IN_A_ROW]


def test_one_match_that_is_found_brings_the_old_vigilance_back() -> None:
    watched = Watched()
    for _ in range(MISSES_IN_A_ROW):
        watched.finish(1000, 0)
    watched.detector.observe(CacheCleared(worker=W, at_s=2.0))
    watched.finish(1000, 900, at_s=3.0)
    for _ in range(MISSES_IN_A_ROW):
        watched.finish(1000, 0, at_s=4.0)

    assert watched.emptied == [W, W]
