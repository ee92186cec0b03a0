"""Commands that ask a running router over HTTP: `trieway explain` and `trieway experiment start|status|stop`.

Only words and tables here; what they show is made by the routes they call. Called by cli.
"""

from __future__ import annotations

import json
import os
from dataclasses import fields
from typing import Any

import click
import httpx
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from router.experiment.config import ExperimentConfig

TIMEOUT_S = 10.0
_url = click.option(
    "--url", default="http://127.0.0.1:8080", show_default=True, envvar="TRIEWAY_URL", help="the router to ask"
)
_json = click.option("--json", "as_json", is_flag=True, help="print JSON")
KEY_VARIABLE = "TRIEWAY_API_KEY"
"""Environment variable with the admin key of a router that asks for one. No flag: others could read it in `ps`."""


def ask(method: str, url: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The router's answer. Raises ClickException with its own error message, or with what kept it from answering."""
    key = os.environ.get(KEY_VARIABLE)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.request(method, url.rstrip("/") + path, json=body, headers=headers, timeout=TIMEOUT_S)
        data: Any = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise click.ClickException(f"{url} does not answer: {error}") from error
    except ValueError as error:
        raise click.ClickException(f"{url}{path} did not answer with JSON. Is it a Trieway router?") from error
    if answer.is_success and isinstance(data, dict):
        return data
    found = data.get("error") if isinstance(data, dict) else None
    message = found.get("message") if isinstance(found, dict) else None
    hint = f" Put an admin key into {KEY_VARIABLE}." if answer.status_code in (401, 403) else ""
    raise click.ClickException((message or f"{url}{path} answered {answer.status_code}.") + hint)


@click.command()
@click.argument("request_id", default="last")
@_url
@_json
def explain(request_id: str, url: str, as_json: bool) -> None:
    """Show why a request went where it went, and what came of it.

    REQUEST_ID is in the answer's x-request-id header and on the dashboard; without it, the last request that ended.
    """
    found = ask("GET", url, f"/explain/{request_id}")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    console = Console()
    if request_id == "last":
        console.print(f"request {found['request_id']}")
    for number, attempt in enumerate(found["attempts"], start=1):
        console.print(_candidates(number, attempt))
    if not found["attempts"]:
        console.print("Its candidates were not written down (explain.weigh_per_s); this is what is known:")
    console.print(_ending(found))


def _candidates(number: int, attempt: dict[str, Any]) -> Table:
    costs = [term for each in attempt["candidates"] for term in each["terms_s"].items()]
    terms = list(dict.fromkeys(name for name, seconds in costs if seconds))
    arm = f", arm {attempt['arm']}" if attempt["arm"] else ""
    title = f"attempt {number}: {attempt['policy']}{arm} chose {attempt['worker']} ({attempt['reason']}); costs in ms"
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for column in ("worker", "in flight", "waiting", "match", *(term.replace("_", " ") for term in terms), "cost"):
        table.add_column(column, justify="left" if column == "worker" else "right", no_wrap=column == "worker")
    for each in attempt["candidates"]:
        cells = [_number(each["in_flight"]), _number(each["waiting"]), _number(each["match_tokens"])]
        cells += [_milliseconds(each["terms_s"].get(term)) for term in terms]
        mark = "> " if each["chosen"] else "  "
        table.add_row(mark + each["worker"], *cells, _milliseconds(each["cost_s"]), style="bold" * each["chosen"])
    return table


def _ending(found: dict[str, Any]) -> Table | str:
    outcome = found["outcome"]
    if outcome is None:
        return "It is still running."
    title = f"what happened: {outcome['error'] or outcome['status']}, worker {outcome['worker']}"
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for column in ("", "expected", "actual"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("cached tokens", _number(outcome["expected_match_tokens"]), _number(outcome["cached_tokens"]))
    table.add_row("held here ms", "", _milliseconds(outcome["held_s"]))
    ttft = _milliseconds(outcome["expected_ttft_s"]), _milliseconds(_after_hold_s(outcome))
    table.add_row("TTFT after that ms", *ttft)
    table.add_row("E2E ms", "", _milliseconds(outcome["e2e_s"]))
    table.add_row("prompt tokens", "", _number(outcome["prompt_tokens"]))
    table.add_row("completion tokens", "", _number(outcome["completion_tokens"]))
    return table


def _after_hold_s(outcome: dict[str, Any]) -> float | None:
    return None if outcome["ttft_s"] is None else float(outcome["ttft_s"] - outcome["held_s"])


@click.group()
def experiment() -> None:
    """Compare routing policies on live traffic."""


@experiment.command()
@click.option("--arm", "arms", multiple=True, required=True, metavar="NAME=POLICY[:PARAM=VALUE,...][@SHARE]",
              help="An arm; the control first, then one or more treatments.")
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE",
              help=f"Any of: {', '.join(each.name for each in fields(ExperimentConfig) if each.name != 'arms')}.")
@_url
@_json  # fmt: skip
def start(arms: tuple[str, ...], settings: tuple[str, ...], url: str, as_json: bool) -> None:
    """Start an experiment, after checking that it can work."""
    body: dict[str, Any] = {"arms": list(arms)}
    for setting in settings:
        field, equals, value = setting.partition("=")
        if not equals:
            raise click.BadParameter(f"write FIELD=VALUE, not {setting!r}", param_hint="--set")
        body[field] = value
    _show(ask("POST", url, "/experiment", body), as_json)


@experiment.command()
@_url
@_json
def status(url: str, as_json: bool) -> None:
    """Show the running experiment, or the last one, with its intervals as of now."""
    found = ask("GET", url, "/experiment")
    shown = found["running"] or next(iter(found["past"]), None)
    if shown is None:
        raise click.ClickException("No experiment is running, and none has been since the router started.")
    _show(shown, as_json)


@experiment.command()
@_url
@_json
def stop(url: str, as_json: bool) -> None:
    """Stop the running experiment and show its result."""
    _show(ask("DELETE", url, "/experiment"), as_json)


def _show(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    console = Console()
    console.print(f"{report['name']}: {report['state']}, for {report['age_s']:.0f} s. {report['why']}".strip())
    console.print(report["isolation_why"])
    table = Table(box=SIMPLE)
    for column in ("arm", "policy", "share", "workers", "requests", "failed", "spilled"):
        table.add_column(column, no_wrap=column in ("arm", "policy"))
    for arm in report["arms"]:
        workers = ", ".join(arm["workers"]) if arm["workers"] else "all, in turns"
        table.add_row(
            arm["name"], arm["policy"], f"{arm['share']:g}", workers,
            str(arm["requests"]), str(arm["failed"]), str(arm["spilled"]),
        )  # fmt: skip
    console.print(table)
    for comparison in report["comparisons"]:
        console.print(_measures(comparison, report["primary"]))


def _measures(comparison: dict[str, Any], primary: str) -> Table:
    title = f"{comparison['treatment']} against {comparison['control']}: {comparison['verdict']}. {comparison['why']}"
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for column in ("measure", comparison["control"], comparison["treatment"], "difference", "interval"):
        table.add_column(column, justify="left" if column == "measure" else "right", no_wrap=True)
    for row in comparison["measures"]:
        if row["control"] is None:
            continue
        unit, scale = ("ms", 1000.0) if row["unit"] == "s" else (row["unit"], 1.0)
        low, high = row["low"], row["high"]
        table.add_row(
            f"{row['measure']} ({unit})" + ("  *" if row["measure"] == primary else ""),
            _figure(row["control"] * scale),
            _figure(row["treatment"] * scale),
            _figure(row["difference"] * scale, "+"),
            "-" if low is None else f"{_figure(low * scale, '+')} to {_figure(high * scale, '+')}",
        )
    table.caption = "* decides. Intervals hold at every look."
    return table


def _figure(value: float, sign: str = "") -> str:
    return f"{value:{sign},.0f}" if abs(value) >= 100 else f"{value:{sign}.3g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{1000 * value:,.1f}"
