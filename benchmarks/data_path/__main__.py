"""`make bench`: CPU per request, rate, latency and memory of routers, side by side in one run.

Two cores: the router alone on the first, load generator and backend on the second. Candidates take turns in every cell
of every round, so that drifts of the machine hit all alike; figures are medians over the rounds, and only ratios
within one run mean anything. A cell in which any candidate had an error is void and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import candidates as known
from candidates import ROOT, Candidate
from prepared import SIZES, write_requests
from processes import Router, compile_programs, free_port, running, wait_ready

WORKERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One kind of load. `rate` 0 is a closed loop."""

    name: str
    file: str
    connections: int
    requests: int
    rate: float = 0.0
    streams: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One candidate in one cell of one round."""

    candidate: str
    cell: str
    round: int
    cpu_us: float
    """CPU of the router's processes per request; per event in streaming cells."""
    rate: float
    p50_us: float
    p99_us: float
    first_p50_us: float
    errors: int
    memory_mb: float


def cells(quick: bool) -> list[Cell]:
    """The grid: body sizes by connections, paced streams, and an open loop for latency."""
    requests = {"200B": 6000, "4kB": 5000, "40kB": 3000, "400kB": 500}
    made = []
    for size in SIZES:
        for connections in (1, 16, 64, 256):
            count = requests[size] if connections > 1 else requests[size] // 3
            made.append(Cell(name=f"{size}, c={connections}", file=size, connections=connections, requests=count))
    made += [
        Cell(name=f"{streams} streams", file="stream", connections=streams, requests=4 * streams, streams=True)
        for streams in (20, 128)
    ]
    made.append(Cell(name="100/s", file="4kB", connections=32, requests=400, rate=100.0))
    return [cell for cell in made if not quick or cell.connections in (16, 20, 32)]


def measure(program: Path, port: int, cell: Cell, files: Path, core: int) -> dict[str, float]:
    """One run of the load generator; its JSON."""
    argv = [str(program), str(port), str(cell.connections), str(cell.requests), str(cell.rate), "90"]
    argv.append(str(files / f"{cell.file}.bin"))
    done = subprocess.run(
        argv, capture_output=True, text=True, check=True, preexec_fn=lambda: os.sched_setaffinity(0, {core})
    )
    answer: dict[str, float] = json.loads(done.stdout)
    answer["lost"] = answer["bad"] + answer["errors"] + (cell.requests - answer["done"])
    if cell.streams:
        answer["lost"] += answer["events"] < 65 * cell.requests
    if answer["lost"]:
        print(f"    {done.stderr.strip()[:300]}", file=sys.stderr)
    return answer


def one(router: Router, program: Path, cell: Cell, files: Path, round_: int, core: int) -> Sample:
    before_s = router.cpu_s()
    seen = measure(program, router.port, cell, files, core)
    used_s = router.cpu_s() - before_s
    count = seen["events"] if cell.streams else seen["done"]
    return Sample(
        candidate=router.candidate.name, cell=cell.name, round=round_, cpu_us=1e6 * used_s / max(1, count),
        rate=seen["rate"], p50_us=seen["p50_us"], p99_us=seen["p99_us"], first_p50_us=seen["first_p50_us"],
        errors=int(seen["lost"]), memory_mb=router.memory_mb(),
    )  # fmt: skip


def table(samples: Sequence[Sample], direct: dict[str, float], names: Sequence[str]) -> str:
    """Markdown: CPU per request and the ratio of the first candidate to each; latency, rate and memory below."""
    first = names[0]
    by: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        by.setdefault((sample.cell, sample.candidate), []).append(sample)

    def median(cell: str, name: str, field: str) -> float:
        return statistics.median(getattr(sample, field) for sample in by[cell, name])

    order = list(dict.fromkeys(sample.cell for sample in samples))
    ratios = [f"{first} / {name}" for name in names[1:]]
    lines = ["CPU microseconds of the router per request (per event for streams), medians over rounds:", ""]
    lines += [f"| cell | {' | '.join([*names, *ratios])} |", "| --- " * (1 + len(names) + len(ratios)) + "|"]
    for cell in order:
        cpu = [median(cell, name, "cpu_us") for name in names]
        shown = [f"{value:.1f}" for value in cpu] + [f"{cpu[0] / max(value, 1e-9):.2f}" for value in cpu[1:]]
        lines.append(f"| {cell} | {' | '.join(shown)} |")
    lines += ["", "Requests/s, p50 and p99 (ms), resident memory (MB) after the cell:", ""]
    lines += [f"| cell | {' | '.join(names)} |", "| --- " * (1 + len(names)) + "|"]
    for cell in order:
        parts = [
            f"{median(cell, name, 'rate'):.0f}/s, {median(cell, name, 'p50_us') / 1000:.2f} / "
            f"{median(cell, name, 'p99_us') / 1000:.2f}, {median(cell, name, 'memory_mb'):.0f}"
            for name in names
        ]
        lines.append(f"| {cell} | {' | '.join(parts)} |")
    lines += ["", "Added p50 to the first byte over the backend itself (ms):", ""]
    lines += [f"| cell | {' | '.join(names)} |", "| --- " * (1 + len(names)) + "|"]
    for cell, base in direct.items():
        parts = [f"{(median(cell, name, 'first_p50_us') - base) / 1000:.2f}" for name in names]
        lines.append(f"| {cell} | {' | '.join(parts)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one column of the grid, for work in progress")
    parser.add_argument("--policy", help="Trieway's policy (default: its default)")
    parser.add_argument("--only", help="candidates to run, with commas between (trieway always runs)")
    parser.add_argument("--cells", help="only cells whose name contains this")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "bench", help="where peers are installed")
    parser.add_argument("--out", type=Path, help="write all samples as JSON here, and the table beside it as Markdown")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("The benchmark needs two cores.")
    options.work.mkdir(parents=True, exist_ok=True)
    compile_programs(options.work)
    files = options.work / "requests"
    write_requests(files)
    wanted = set(options.only.split(",")) if options.only else {"smg", "sglang-router", "nginx"}
    chosen = [known.trieway(options.policy)]
    if "sglang-router" in wanted:
        chosen.append(known.sglang_router(options.work))
    if "smg" in wanted:
        chosen.append(known.smg(options.work))
    floor = known.nginx(options.work) if "nginx" in wanted else None
    if floor is not None:
        chosen.append(floor)
    elif "nginx" in wanted:
        print("nginx is not installed (Debian: apt install nginx-light): no floor in this run", file=sys.stderr)
    samples, direct = run(chosen, options, files, cores)
    text = describe(chosen) + "\n\n" + table(samples, direct, [candidate.name for candidate in chosen])
    print(text)
    void = sorted({sample.cell for sample in samples if sample.errors})
    if void:
        print(f"\nVOID: errors in {', '.join(void)}")
    if options.out is not None:
        rows = [asdict(sample) for sample in samples]
        options.out.write_text(json.dumps({"about": describe(chosen), "samples": rows}, indent=1))
        options.out.with_suffix(".md").write_text(text + "\n")
    return 1 if void else 0


def describe(chosen: Sequence[Candidate]) -> str:
    about = Path("/proc/cpuinfo").read_text().splitlines()
    named = [line.partition(":")[2].strip() for line in about if line.startswith("model name")]
    processor = named[0] if named else platform.processor()
    versions = ", ".join(f"{candidate.name} {candidate.version}" for candidate in chosen)
    return f"{datetime.now(UTC):%Y-%m-%d}, {processor}, Python {platform.python_version()}; {versions}"


def run(
    chosen: Sequence[Candidate], options: argparse.Namespace, files: Path, cores: Sequence[int]
) -> tuple[list[Sample], dict[str, float]]:
    """All cells, all rounds."""
    grid = [cell for cell in cells(options.quick) if not options.cells or options.cells in cell.name]
    samples: list[Sample] = []
    direct: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary, ExitStack() as stack:
        base = free_port(WORKERS + 2 * len(chosen) + 2)
        workers = list(range(base, base + WORKERS))
        argv = [str(options.work / "backend"), str(base), str(WORKERS)]
        backend, log = stack.enter_context(running("backend", argv, cores[1], Path(temporary)))
        wait_ready(base, backend, log)
        routers = []
        for i, candidate in enumerate(chosen):
            port, folder = base + WORKERS + 2 * i, Path(temporary) / candidate.name.replace(" ", "-")
            folder.mkdir()
            argv = candidate.command(port, workers, folder)
            process, log = stack.enter_context(running(candidate.name, argv, cores[0], folder))
            wait_ready(port, process, log)
            routers.append(Router(candidate, process, port))
        program = options.work / "load"
        for router in routers:  # warm: connections, tries, branch predictors
            measure(program, router.port, Cell(name="warm", file="4kB", connections=16, requests=1000), files, cores[1])
        for cell in grid:
            if cell.rate or cell.streams:
                direct[cell.name] = measure(program, base, cell, files, cores[1])["first_p50_us"]
        for round_ in range(1, options.rounds + 1):
            for cell in grid:
                for router in routers if round_ % 2 else routers[::-1]:
                    samples.append(one(router, program, cell, files, round_, cores[1]))
                    sample = samples[-1]
                    print(
                        f"  round {round_}, {cell.name}: {sample.candidate} {sample.cpu_us:.1f} us, {sample.rate:.0f}/s"
                        + (f", {sample.errors} ERRORS" if sample.errors else ""),
                        file=sys.stderr, flush=True,
                    )  # fmt: skip
    return samples, direct


if __name__ == "__main__":
    sys.exit(main())
