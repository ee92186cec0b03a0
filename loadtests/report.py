"""A scenario's outcome as one HTML page that needs nothing else: tables, inline pictures, how to repeat it.

Called by scenario_command.py. Not here: pictures (report_plots.py), how figures are computed (scenario_outcome.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from loadtests import report_plots
from loadtests.figures import Figure
from loadtests.measures import Distribution
from loadtests.scenario_outcome import Outcome
from loadtests.scenario_table import change_text, goodput_remark, imbalances, remarks, value_text

_CSS = """
:root{color-scheme:light}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;color:#20262d;background:#fff;
max-width:66rem;margin:2.5rem auto;padding:0 1.25rem}
h1{font-size:1.6rem;margin:0 0 .2rem}h2{font-size:1.1rem;margin:2.4rem 0 .6rem}
p.lead{font-size:1.05rem;margin:.4rem 0 1.2rem}p,li{max-width:52rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.4rem 0;font-size:.93rem}
th,td{padding:.28rem .8rem;text-align:right;border-bottom:1px solid #e4e7eb;white-space:nowrap}
th{font-weight:600;border-bottom:2px solid #9aa3ad;vertical-align:bottom}
td.text{white-space:normal;text-align:left;min-width:14rem}
th:first-child,td:first-child{text-align:left;padding-left:0}
td.better{color:#00663f;background:#eaf6f0}td.worse{color:#9c2f00;background:#fdf0e8}td.unclear{color:#5a636d}
td small{color:#5a636d;display:block;font-size:.8rem}
.dot{display:inline-block;width:.7em;height:.7em;border-radius:50%;margin-right:.35em}
.runs{font-size:.85rem}.runs th,.runs td{padding:.2rem .45rem}
.scroll{overflow-x:auto}svg{max-width:100%;height:auto;font-family:inherit}figure{margin:1rem 0}
pre{background:#f5f6f8;padding:.8rem 1rem;overflow-x:auto;font-size:.85rem;line-height:1.4}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem}dt{color:#5a636d}dd{margin:0}
.note{color:#5a636d;font-size:.9rem}
"""


def html(outcome: Outcome) -> str:
    """The page."""
    title = escape(outcome.scenario.title)
    body = "\n".join(_body(outcome))
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_CSS}</style></head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _body(outcome: Outcome) -> Iterator[str]:
    scenario = outcome.scenario
    yield f"<h1>{escape(scenario.title)}</h1>"
    yield f'<p class="note">{escape(outcome.conditions.started_at)} &middot; {escape(_how(outcome))}</p>'
    if scenario.about:
        yield f'<p class="lead">{escape(scenario.about)}</p>'
    if outcome.passes:
        yield from _comparison(outcome)
    if outcome.goodput:
        yield "<h2>Goodput</h2>"
        yield _goodput_table(outcome)
        yield _figure(report_plots.goodput(outcome))
    notes = list(remarks(outcome))
    if notes:
        yield "<h2>What to know</h2><ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"
    if outcome.passes:
        yield "<h2>Every run</h2>"
        yield _runs_table(outcome)
    yield from _conditions(outcome)


def _comparison(outcome: Outcome) -> Iterator[str]:
    yield "<h2>Figures</h2>"
    yield _figures_table(outcome)
    if outcome.changes:
        yield (
            '<p class="note">Small print: change from '
            f"{escape(outcome.arms[0])}, for shares in percentage points, with its 95 % interval (paired bootstrap "
            "over blocks of sessions that arrived together). A colour means that the interval excludes zero. Intervals "
            "hold for each figure alone: of twenty, one may miss by chance.</p>"
        )
        yield _figure(report_plots.changes(outcome))
    yield "<h2>Distributions</h2>"
    yield _figure(report_plots.distributions(outcome))
    yield _figure(report_plots.through_time(outcome))
    yield "<h2>Caches and balance</h2>"
    yield _figure(report_plots.caches_and_balance(outcome))


def _figures_table(outcome: Outcome) -> str:
    """Every figure of every arm; under those of the others how they differ from the first."""
    rows = [
        [f"<td>{escape(figure.label)}</td>", *(_figure_cell(outcome, arm, figure) for arm in outcome.arms)]
        for figure in outcome.figures
    ]
    balance = [f"<td>{_mean(imbalances(outcome, arm))}</td>" for arm in outcome.arms]
    rows.append(["<td>busiest worker&rsquo;s computed tokens / mean</td>", *balance])
    return _table(["", *(_dotted(outcome, arm) for arm in outcome.arms)], rows)


def _figure_cell(outcome: Outcome, arm: str, figure: Figure) -> str:
    value = value_text(figure, outcome.values[arm][figure.key])
    difference = outcome.change(arm, figure.key)
    if difference is None or difference.change is None or difference.low == difference.high == 0:
        return f"<td>{value}</td>"
    return f'<td class="{difference.verdict.value}">{value}<small>{change_text(figure, difference)}</small></td>'


def _goodput_table(outcome: Outcome) -> str:
    named = outcome.scenario.goodput_objective
    rows = []
    for found in outcome.goodput:
        best = found.best
        rows.append([
            f"<td>{_dotted(outcome, found.arm)}</td>",
            f"<td>{'none' if best is None else f'{best.requests_per_s:.2f}'}</td>",
            f"<td>{'-' if best is None else f'{100 * best.share:.1f} %'}</td>",
            f"<td>{'-' if found.failed_rate is None or best is None else _failed(found.failed_rate, best.rate)}</td>",
            f'<td>{len(found.trials)}</td><td class="text">{escape(goodput_remark(found))}</td>',
        ])  # fmt: skip
    table = _table(["", "highest rate, requests/s", "within", "next rate, failed", "trials", ""], rows)
    if named is None:
        return table
    name, spec = named
    return f"<p>{100 * spec.share:g} % of requests within &lsquo;{escape(name)}&rsquo;: {escape(str(spec))}.</p>{table}"


def _failed(failed_rate: float, best_rate: float) -> str:
    return f"+{100 * (failed_rate / best_rate - 1):.0f} %"


def _runs_table(outcome: Outcome) -> str:
    heads = ["", "repetition", "ran as", "requests", "errors", "cached", "TTFT p50 / p90 / p99 ms", "ITL p50 / p99 ms",
             "E2E p50 / p99 s", "tokens/s", "imbalance"]  # fmt: skip
    rows = []
    for one in outcome.passes:
        summary = one.run.summary
        cached = summary.cached_token_ratio
        cells = [
            _dotted(outcome, one.arm) + ("" if one.run.complete else " (interrupted)"),
            f"{one.repetition + 1}",
            f"{one.position + 1}",
            f"{summary.requests}",
            f"{summary.errors}",
            "-" if cached is None else f"{100 * cached:.1f} %",
            _spread(summary.ttft_s, 1000, ("p50", "p90", "p99"), 0),
            _spread(summary.itl_s, 1000, ("p50", "p99"), 1),
            _spread(summary.e2e_s, 1, ("p50", "p99"), 2),
            f"{summary.output_token_rate:.0f}",
            "-" if summary.imbalance_uncached is None else f"{summary.imbalance_uncached:.2f}",
        ]
        rows.append([f"<td>{cell}</td>" for cell in cells])
    return f'<div class="runs">{_table(heads, rows)}</div>'


def _conditions(outcome: Outcome) -> Iterator[str]:
    under = outcome.conditions
    pairs = [
        ("command", f"<code>{escape(under.command)}</code>"),
        ("machine", escape(under.machine)),
        ("versions", escape(under.versions)),
        ("fleet", "<br>".join(map(escape, under.fleet))),
        ("clock", "virtual: no servers, no sockets" if under.virtual else "real"),
    ]
    yield "<h2>How it was run</h2>"
    yield "<dl>" + "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in pairs) + "</dl>"
    yield f"<pre>{escape(outcome.scenario.text)}</pre>"


def _how(outcome: Outcome) -> str:
    repetitions = outcome.scenario.repetitions
    requests = sum(one.run.summary.requests for one in outcome.passes)
    where = "virtual time" if outcome.conditions.virtual else "live"
    if not outcome.passes:
        return f"{where}, goodput search of {len(outcome.goodput)} arms"
    return f"{where}, {len(outcome.scenario.arms)} arms x {repetitions} repetitions, {requests} requests"


def _dotted(outcome: Outcome, arm: str) -> str:
    """The arm's name behind a dot of its colour, as in the pictures."""
    return f'<span class="dot" style="background:{report_plots.colour(outcome, arm)}"></span>{escape(arm)}'


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.2f}" if values else "-"


def _spread(values: Distribution | None, factor: float, names: Iterable[str], decimals: int) -> str:
    if values is None:
        return "-"
    named = {"p50": values.p50, "p90": values.p90, "p99": values.p99}
    return " / ".join(f"{named[name] * factor:.{decimals}f}" for name in names)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """`rows` are finished cells."""
    head = "".join(f"<th>{one}</th>" for one in heads)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _figure(svg: str) -> str:
    return f"<figure>{svg}</figure>"
