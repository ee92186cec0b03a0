from __future__ import annotations

from loadtests.comparison import Run
from loadtests.measures import ErrorKind, Objective, RequestResult, summarize
from loadtests.table import comparison_table, remarks


def run(*results: RequestResult, objective: Objective | None = None, complete: bool = True) -> Run:
    summary = summarize(results, objective=objective)
    return Run(name="p", results=results, workers=[], summary=summary, complete=complete)


def result(**given: object) -> RequestResult:
    values: dict[str, object] = {"session_id": "s", "turn": 0, "start_s": 0.0, "e2e_s": 1.0, **given}
    return RequestResult(**values)  # type: ignore[arg-type]


def test_remarks_name_each_kind_of_failure_with_an_example() -> None:
    failed = result(error=ErrorKind.HTTP_STATUS, error_detail="503 no worker")
    said = list(remarks([run(failed, failed, result(error=ErrorKind.TIMEOUT, error_detail="too long"))]))
    assert said == ["p: 2 x http_status, for example: 503 no worker", "p: 1 x timeout, for example: too long"]


def test_remarks_say_when_no_cached_tokens_were_reported_and_when_requests_left_late() -> None:
    silent, late = list(remarks([run(result(prompt_tokens=5, lag_s=0.5))]))
    assert "--enable-cache-report" in silent
    assert "left late, p99 0.50 s" in late
    assert list(remarks([run(result(prompt_tokens=5, cached_tokens=0))])) == []


def test_an_interrupted_run_says_so_and_goodput_stands_where_an_objective_was_set() -> None:
    table = comparison_table([run(result(), complete=False, objective=Objective(e2e_s=2.0))], "t")
    cells = [next(iter(column.cells)) for column in table.columns]
    assert cells[0] == "p (interrupted)"
    assert cells[-1] == "100.0 %"
    assert len(comparison_table([run(result())], "t").columns) == len(cells) - 1
