"""Files of runs: what was measured on one server, kept so that it can be fitted and compared again without the server.

JSON, gzipped where the name ends in .gz. Called by commands.py.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.calibrate.experiment import Run, run_as_json, run_from_json
from workers.calibrate.server_facts import ServerFacts
from workers.simulated.errors import BadOption

FORMAT = "trieway runs 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """Runs on one server. `date` is that of the first, as YYYY-MM-DD."""

    facts: ServerFacts
    date: str
    runs: tuple[Run, ...]


def write_measurements(measurements: Measurements, path: Path) -> None:
    """Raises BadOption when the file cannot be written."""
    data = {
        "format": FORMAT,
        "date": measurements.date,
        "server": measurements.facts.as_json(),
        "runs": [run_as_json(run) for run in measurements.runs],
    }
    text = json.dumps(data, separators=(",", ":")).encode()
    try:
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    except OSError as error:
        raise BadOption(f"{path}: {error.strerror}") from error


def read_measurements(path: Path) -> Measurements:
    """What `write_measurements` wrote. Raises BadOption, naming the file."""
    try:
        raw = path.read_bytes()
        data = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
        if data["format"] != FORMAT:
            raise BadOption(f"{path}: format {data['format']!r} is not {FORMAT!r}")
        runs: Sequence[Run] = [run_from_json(run) for run in data["runs"]]
        server = data["server"]
        server["prefill_sizes"] = tuple(server.get("prefill_sizes", ()))
        return Measurements(facts=ServerFacts(**server), date=str(data["date"]), runs=tuple(runs))
    except OSError as error:
        raise BadOption(f"{path}: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadOption(f"{path}: no file of measurements: {error!r}") from error
