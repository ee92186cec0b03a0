"""`trieway demo radix`: what a prefix cache saves and what spreading requests loses, live in the terminal.

Options, lines and the summary. Not here: the rounds (demo_radix.py), the picture (demo_radix_plot.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.markup import escape

from loadtests.demo_radix import Asked, Lost, Plan, Round, lost_by_round_robin, show_endpoint, show_fleet
from loadtests.endpoint import TargetError
from loadtests.fleet import FleetPlan
from loadtests.interrupt import Interrupted, run_until_interrupted
from loadtests.lazy_command import EXTRA_MODULES, missing_extra
from loadtests.processes import ChildExited

_BAR_CHARACTERS = 16
_PICTURES = (".png", ".svg", ".pdf")
EXIT_INTERRUPTED = 130  # as shells report a program ended by Ctrl-C


class Lines:
    """Prints each question as it is answered; nothing when a machine reads."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._first_s = 0.0

    def begin(self, name: str, about: str) -> None:
        self._console.print(f"\n[bold]{escape(name)}[/]: {escape(about)}")
        self._console.print("  question  worker      prompt    cached       TTFT  speed-up", style="dim")

    def asked(self, asked: Asked) -> None:
        if asked.number == 1:
            self._first_s = asked.ttft_s
        bar = "█" * max(1, round(_BAR_CHARACTERS * min(1.0, asked.ttft_s / self._first_s)))
        self._console.print(
            f"  {asked.number:>8}  {escape((asked.worker or '-')[:8]):<8}  {asked.prompt_tokens:>8,}  "
            f"{asked.cached_tokens:>8,}  {milliseconds(asked.ttft_s):>9}  {asked.speed_up:>7.1f}x  "
            f"[{'green' if asked.was_cached else 'yellow'}]{bar}[/]"
        )


@click.command()
@click.option("--workers", type=click.IntRange(1, 64), default=4, show_default=True, help="Simulated workers to start.")
@click.option("--worker", "worker_urls", multiple=True, metavar="URL",
              help="Use this running worker instead; repeat. Its cache is emptied.")  # fmt: skip
@click.option("--endpoint", metavar="URL", help="Ask a running router or server instead; nothing is emptied.")
@click.option("--questions", type=click.IntRange(2, 1000), default=Plan().questions, show_default=True,
              help="Questions in each round.")  # fmt: skip
@click.option("--document-tokens", type=click.IntRange(100), default=Plan().document_tokens, show_default=True,
              help="Length of the document.")  # fmt: skip
@click.option("--policy", default=Plan().policy, show_default=True, help="The router's policy in the last round.")
@click.option("--model", help="Model to ask for.  [default: the first that is served]")
@click.option("--api-key", envvar="OPENAI_API_KEY", help="Key to send with --worker or --endpoint.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Save a picture: .png, .svg or .pdf.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
def radix(
    *, workers: int, worker_urls: tuple[str, ...], endpoint: str | None, questions: int, document_tokens: int,
    policy: str, model: str | None, api_key: str | None, plot: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Ask several questions about one long document, and see what the cache saves.

    First to one worker; then to several in turn; then through the router.
    """
    if endpoint is not None and worker_urls:
        raise click.UsageError("--endpoint goes without --worker")
    if plot is not None and plot.suffix not in _PICTURES:
        raise click.BadParameter(f"{plot} ends with none of {', '.join(_PICTURES)}", param_hint="--plot")
    running = endpoint is not None or worker_urls
    plan = Plan(document_tokens=document_tokens, questions=questions, policy=policy, model=model,
                api_key=api_key if running else None)  # fmt: skip
    console = Console(highlight=False, quiet=as_json)
    fleet_plan = FleetPlan(workers=workers, worker_urls=worker_urls)
    rounds: list[Round] = []
    count = len(worker_urls) or workers

    async def work() -> None:
        nonlocal count
        if endpoint is None:
            rounds.extend(await show_fleet(plan, fleet_plan, Lines(console)))
        else:
            url = endpoint.rstrip("/").removesuffix("/v1")
            only, count = await show_endpoint(plan, url, Lines(console))
            rounds.append(only)

    try:
        run_until_interrupted(work())
    except (ChildExited, TargetError) as error:
        raise click.ClickException(str(error)) from error
    except Interrupted:
        click.echo("Interrupted; everything that was started has been stopped.", err=True)
        raise SystemExit(EXIT_INTERRUPTED) from None
    lost = lost_by_round_robin(rounds, count)
    if as_json:
        click.echo(as_text(plan, count, rounds, lost))
    else:
        for line in summary(rounds, lost, count):
            console.print(line, soft_wrap=True)
    if plot is not None:
        save(plot, rounds, plan)
        console.print(f"\nThe picture is in {escape(str(plot))}.", soft_wrap=True)


def summary(rounds: Sequence[Round], lost: Lost, workers: int) -> list[str]:
    """What to take home, in sentences."""
    first = rounds[0].asked[0]
    later = [each for each in rounds[0].asked[1:] if each.was_cached]
    everything = [each for one in rounds for each in one.asked]
    if not any(each.cached_tokens for each in everything):
        return ["", "No answer reported cached tokens. Was the server started with --enable-cache-report?"]
    if not any(each.was_cached for each in everything):
        return ["", "No question found the document in a cache: none came to a worker that had it."]
    lines = [""]
    if later:
        mean_s = sum(each.ttft_s for each in later) / len(later)
        lines.append(
            f"RadixAttention: the first question waited {milliseconds(first.ttft_s)}, later ones "
            f"{milliseconds(mean_s)} ({first.ttft_s / mean_s:.1f} times quicker): the document was computed once."
        )
    if workers > 1:
        how = "took" if lost.measured else "would have taken, by the first question's cost,"
        lines.append(
            f"Round robin over {workers} workers {how} {milliseconds(lost.ttft_s)} longer for "
            f"{len(rounds[-1].asked)} questions and computed {lost.computed_tokens:,} tokens more than "
            f"{'the router' if lost.measured else 'this endpoint'}."
        )
    return lines


def as_text(plan: Plan, workers: int, rounds: Sequence[Round], lost: Lost) -> str:
    """Everything as JSON."""
    about = {name: value for name, value in asdict(plan).items() if name != "api_key"}
    everything = {
        "plan": {**about, "workers": workers},
        "rounds": [asdict(each) for each in rounds],
        "lost_by_round_robin": asdict(lost),
    }
    return msgspec.json.format(msgspec.json.encode(everything), indent=2).decode()


def save(path: Path, rounds: Sequence[Round], plan: Plan) -> None:
    """The picture. Raises ClickException where it cannot be drawn or written."""
    try:
        from loadtests.demo_radix_plot import draw  # matplotlib takes a second to import

        draw(path, rounds, plan.document_tokens)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in EXTRA_MODULES:
            raise
        raise missing_extra(error.name) from error
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from error


def milliseconds(seconds: float) -> str:
    """`12.3 ms`, or seconds from ten on."""
    return f"{seconds:,.1f} s" if abs(seconds) >= 10 else f"{1000 * seconds:,.1f} ms"
