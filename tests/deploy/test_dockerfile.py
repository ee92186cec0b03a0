"""The Dockerfile as data: what it copies is there, what it installs is pinned, and nobody is root.

`python deploy/build_check.py` runs its steps.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from scripts import load_script

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "deploy/Dockerfile").read_text("utf-8")
IMAGES = ("router", "simulated", "load")


@pytest.fixture(scope="module")
def build_check() -> ModuleType:
    return load_script(ROOT / "deploy/build_check.py")


@pytest.fixture(scope="module")
def stages(build_check: ModuleType) -> dict[str, list[tuple[str, str]]]:
    """Each stage's instructions, its base's FROM first."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, rest in build_check.instructions(TEXT):
        if name == "FROM":
            steps = found[rest.partition(" AS ")[2]] = []
        if found:
            steps.append((name, rest))
    return found


def test_what_is_copied_is_there_and_is_sent_to_the_builder(stages: dict[str, list[tuple[str, str]]]) -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for steps in stages.values():
        for name, rest in steps:
            if name == "COPY" and not rest.startswith("--from="):
                sources = rest.split()[:-1]
                assert [source for source in sources if not (ROOT / source).exists()] == []
                assert set(sources) <= sent


def test_every_stage_begins_from_one_before_it_or_from_the_pinned_image(
    stages: dict[str, list[tuple[str, str]]],
) -> None:
    known = {"${PYTHON_IMAGE}"}
    for target, steps in stages.items():
        assert steps[0][1].partition(" AS ")[0] in known
        known.add(target)

    assert re.search(r"^ARG PYTHON_IMAGE=python:\d+\.\d+\.\d+-slim-\w+$", TEXT, re.MULTILINE)


def test_what_is_installed_is_pinned(stages: dict[str, list[tuple[str, str]]]) -> None:
    """By hashes, by version, our own wheel without anything else, or from the distribution of the pinned image."""
    installs = [rest for steps in stages.values() for name, rest in steps if name == "RUN" and "install " in rest]

    assert len(installs) >= 4
    assert [
        rest for rest in installs if not re.search(r"--require-hashes|==\d|--no-deps /wheels/|^apt-get ", rest)
    ] == []


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_as_nobody_in_particular_and_says_how_it_starts(
    image: str, stages: dict[str, list[tuple[str, str]]]
) -> None:
    steps = dict(stages[image])

    assert steps["USER"] == "10001:10001"
    assert steps["ENTRYPOINT"].startswith("[")
    assert "EXPOSE" in steps
    assert [name for name, _ in stages[image]].index("USER") > max(
        [place for place, (name, _) in enumerate(stages[image]) if name in ("COPY", "RUN")]
    )


def test_commands_of_a_stage_stay_in_its_folder(build_check: ModuleType, tmp_path: Path) -> None:
    stage = build_check.Stage(tmp_path / "stage", None)

    assert stage.here("pip --python /opt/trieway/bin/python install /wheels/*.whl") == (
        f"pip --python {tmp_path}/stage/opt/trieway/bin/python install {tmp_path}/stage/wheels/*.whl"
    )
    assert stage.here("cat /usr/share/opt/trieway") == "cat /usr/share/opt/trieway"
