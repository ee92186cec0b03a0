"""Metrics: what an outcome counts as, and that docs/metrics.md is the truth about names, types and labels."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from types import SimpleNamespace

from prometheus_client.core import Metric

from outcomes import decision, outcome
from router.admission.admission import Admission, AdmissionConfig
from router.admission.held_queue import HoldConfig
from router.admission.hold import Hold
from router.admission.retry import RetryBudget, RetryConfig
from router.fleet.kv_feed import FeedState
from router.fleet.registry import Registry
from router.fleet.state import WorkerState
from router.processes.totals import Totals
from router.telemetry.backlog import Backlog
from router.telemetry.guard_metrics import GuardCollector
from router.telemetry.insight_metrics import InsightCollector
from router.telemetry.metrics import Metrics
from router.telemetry.traffic import Traffic
from router.types import ArmName, LoadReport, WorkerId

TABLE = Path(__file__).parents[3] / "docs" / "metrics.md"


def everything() -> Metrics:
    """Metrics with a sample in every family."""
    fleet = Registry(lambda: 0.0)
    worker = fleet.add("http://127.0.0.1:1", "w1")
    worker.load = LoadReport(
        at_s=0.0, running=1, waiting=2, waiting_uncached_tokens=3, used_tokens=4, capacity_tokens=5
    )
    worker.kv_feed = FeedState()
    shadow = {"policy": "random", "asked": 4, "agreement": 0.5, "skipped": 1, "spent_s": 0.25}
    log = SimpleNamespace(written=7, dropped=8, failed=9)
    insight = InsightCollector(log, lambda: [shadow], lambda: [("b", "random", 5, 1, 2)])
    admission = Admission(AdmissionConfig(), lambda: 0.0)
    admission.refused["queue_full"] = 1
    retries, hold = RetryBudget(RetryConfig(), Random(0)), Hold(HoldConfig(), lambda: 1.0)
    guards = GuardCollector(fleet, admission, retries, hold)
    fleet.listen(guards.observe)
    fleet.set_state(worker, WorkerState.READY, "a test")
    backlog = Backlog()
    metrics = Metrics(fleet, backlog, lambda: 1.0, lambda: {WorkerId("w1"): 5}, lambda: {"known": 1}, insight, guards)
    backlog.add(
        outcome(arm=ArmName("b"), attempts=2, decision=decision("w1", match_tokens=32.0, expected_ttft_s=0.2))
    )
    return metrics


def several() -> Totals:
    """The same as of several processes, which adds its own."""
    return Totals(everything(), Traffic(lambda: 1.0, Backlog()), 0)


def exposed(metrics: Metrics | Totals) -> dict[str, tuple[str, frozenset[str]]]:
    """Name as Prometheus sees it -> type and labels."""
    found: dict[str, tuple[str, frozenset[str]]] = {}
    family: Metric
    for family in metrics.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels if label != "le"}
        assert family.samples, f"{name} has no sample: extend `everything`"
        found[name] = (family.type, frozenset(labels))
    return found


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    lines = [line for line in TABLE.read_text("utf-8").splitlines() if line.startswith(("| `trieway_", "| `process_"))]
    rows = [line.strip("| ").split(" | ") for line in lines]
    return {name.strip("`"): (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels, *_ in rows}


def test_the_table_in_the_docs_names_every_metric_with_its_type_and_labels_and_no_other() -> None:
    assert documented() == exposed(several())


def test_every_name_says_its_unit_or_what_is_counted() -> None:
    units = ("_seconds", "_tokens", "_requests", "_blocks", "_per_request", "_total", "_state", "_usable", "_running",
             "_failed", "_spilled", "_info")  # fmt: skip
    ours = [name for name in exposed(everything()) if not name.startswith("process_")]  # those are prometheus_client's

    assert [name for name in ours if not name.startswith("trieway_") or not name.endswith(units)] == []


def test_an_outcome_counts_once_in_every_series_it_belongs_to() -> None:
    text = everything().render().decode()

    for line in (
        'trieway_e2e_seconds_sum{policy="prefix_match",worker="w1"} 1.5',
        'trieway_decisions_total{policy="prefix_match",reason="prefix",worker="w1"} 1.0',
        'trieway_retries_total{policy="prefix_match"} 1.0',
        'trieway_ttft_seconds_count{policy="prefix_match",worker="w1"} 1.0',
        'trieway_arm_ttft_seconds_count{arm="b",policy="prefix_match"} 1.0',
        'trieway_arm_cached_tokens_total{arm="b",policy="prefix_match"} 64.0',
        'trieway_ttft_error_seconds_bucket{le="0.1",policy="prefix_match",worker="w1"} 1.0',
        'trieway_match_error_tokens_bucket{le="64.0",policy="prefix_match",worker="w1"} 1.0',
        'trieway_shadow_agreements_total{shadow="random"} 2.0',
        'trieway_experiment_spilled{arm="b",policy="random"} 2.0',
        "trieway_decision_log_dropped_total 8.0",
        "trieway_experiment_running 1.0",
    ):
        assert line in text.splitlines()


def test_a_request_that_left_its_arm_does_not_count_there() -> None:
    backlog = Backlog()
    metrics = Metrics(Registry(lambda: 0.0), backlog)
    backlog.add(outcome(arm=ArmName("b"), spilled=True))

    assert 'arm="b"' not in metrics.render().decode()


def test_a_request_that_was_never_decided_counts_as_ended_only() -> None:
    backlog = Backlog()
    metrics = Metrics(Registry(lambda: 0.0), backlog)
    backlog.add(outcome(decision=None, status=400, error="invalid_body"))
    text = metrics.render().decode()

    assert 'error="invalid_body",policy="prefix_match",status="400",worker=""} 1.0' in text
    assert "trieway_ttft_seconds_count{" not in text


def test_of_requests_that_are_alike_each_with_a_prediction_counts_beside_it_without_the_time_it_was_held() -> None:
    backlog = Backlog()
    metrics = Metrics(Registry(lambda: 0.0), backlog)
    for ttft_s, expected_ttft_s in ((0.25, 0.2), (0.25, None), (None, 0.2), (3.0, 1.0)):
        backlog.add(outcome(ttft_s=ttft_s, held_s=0.0, decision=decision(expected_ttft_s=expected_ttft_s)))
    backlog.add(outcome(ttft_s=9.0, held_s=8.5, decision=decision(expected_ttft_s=1.0)))
    lines = metrics.render().decode().splitlines()

    labels = 'policy="prefix_match",worker="w1"'
    assert f"trieway_ttft_error_seconds_count{{{labels}}} 3.0" in lines
    assert f'trieway_ttft_error_seconds_bucket{{le="-0.25",{labels}}} 1.0' in lines  # 0.5 s instead of 1.0
    assert f'trieway_ttft_error_seconds_bucket{{le="0.1",{labels}}} 2.0' in lines  # 0.25 s instead of 0.2
    assert f'trieway_ttft_error_seconds_bucket{{le="2.5",{labels}}} 3.0' in lines  # 3.0 s instead of 1.0


def test_of_requests_that_are_alike_each_that_reports_cached_tokens_counts_beside_its_own_match() -> None:
    backlog = Backlog()
    metrics = Metrics(Registry(lambda: 0.0), backlog)
    for cached_tokens, match_tokens in ((None, 5000.0), (100, 100.0), (None, 0.0), (5000, 0.0)):
        backlog.add(outcome(cached_tokens=cached_tokens, decision=decision(match_tokens=match_tokens)))
    lines = metrics.render().decode().splitlines()

    labels = 'policy="prefix_match",worker="w1"'
    assert f'trieway_match_error_tokens_bucket{{le="-64.0",{labels}}} 0.0' in lines
    assert f'trieway_match_error_tokens_bucket{{le="64.0",{labels}}} 1.0' in lines
    assert f'trieway_match_error_tokens_bucket{{le="16384.0",{labels}}} 2.0' in lines
    assert f"trieway_expected_cached_tokens_total{{{labels}}} 100.0" in lines
