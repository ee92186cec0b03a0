"""Runs the steps of deploy/Dockerfile without Docker, each stage in a folder of its own: `build_check.py [FOLDER]`.

Where there is no Docker engine this shows that what is copied exists, that the locked packages install with their
hashes, that the wheel builds, and that each image's own program starts. What it cannot show: the base image, users.
FOLDER (a new temporary one by default) stays; a GB. Needs the package index, and Python of the Dockerfile's version.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = ("/opt/trieway", "/wheels", "/src", "/app", "/usr/local/bin/probe.py")
"""Paths of an image that stages write to; in commands they become paths of the stage's folder."""
AS_ROOT = ("apt-get", "groupadd", "useradd")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, arguments) in order, continuation lines joined."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    found = [line.partition(" ") for line in joined.splitlines() if line.strip()]
    return [(name, rest.strip()) for name, _, rest in found]


class Stage:
    """One stage of the build: its folder, where it works, its environment."""

    def __init__(self, folder: Path, parent: Stage | None) -> None:
        self.folder = folder
        self.workdir = "/" if parent is None else parent.workdir
        self.entrypoint: list[str] = []
        if parent is None:
            venv.create(folder / "python", with_pip=True)  # the base image's; this machine's stays as it is
        else:
            shutil.copytree(parent.folder, folder, symlinks=True)

    def here(self, text: str) -> str:
        """`text` with the image's own paths as paths of the stage's folder."""
        for path in OURS:
            text = re.sub(rf"(?<![\w/.]){re.escape(path)}(?![\w-])", str(self.folder) + path, text)
        return text

    def path(self, name: str) -> Path:
        inside = name if name.startswith("/") else f"{self.workdir.rstrip('/')}/{name}"
        return Path(f"{self.folder}{inside}")

    def run(self, command: str) -> None:
        """Raises CalledProcessError."""
        if command.startswith(AS_ROOT):
            say(f"  left out (it would change this machine): {command}")
            return
        self.path(".").mkdir(parents=True, exist_ok=True)
        programs = f"{self.folder}/opt/trieway/bin:{self.folder}/python/bin"
        environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PIP_QUIET": "2"}
        environment.pop("PYTHONPATH", None)
        argv = ["/bin/bash", "-euc", self.here(command)]
        subprocess.run(argv, cwd=self.path("."), env=environment, check=True)  # noqa: S603  the Dockerfile's own

    def copy(self, sources: list[str], target: str, origin: Stage | None) -> None:
        for source in sources:
            found = ROOT / source if origin is None else origin.path(source)
            to = self.path(target)
            if found.is_dir():
                left_out = shutil.ignore_patterns("__pycache__")
                shutil.copytree(found, to, symlinks=True, dirs_exist_ok=True, ignore=left_out)
            else:
                to = to / found.name if target.endswith("/") else to
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, to)


def build(folder: Path) -> dict[str, Stage]:
    """Every stage, in the order of the Dockerfile."""
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for name, rest in instructions((ROOT / "deploy/Dockerfile").read_text("utf-8")):
        if name == "FROM":
            base, _, target = rest.partition(" AS ")
            say(f"{target} (from {base})")
            stage = stages[target] = Stage(folder / target, stages.get(base))
        elif stage is None:
            continue
        elif name == "WORKDIR":
            stage.workdir = rest
        elif name == "RUN":
            say(f"  {rest[:110]}")
            stage.run(rest)
        elif name == "COPY":
            words = shlex.split(rest)
            origin = stages[words.pop(0).partition("=")[2]] if words[0].startswith("--from=") else None
            stage.copy(words[:-1], words[-1], origin)
        elif name == "ENTRYPOINT":
            stage.entrypoint = json.loads(rest)
    return stages


def main() -> None:
    """Builds all stages, then has each image's program show its version or help."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="trieway-build-"))
    for name, stage in build(folder.resolve()).items():
        if stage.entrypoint:
            stage.run(shlex.join([*stage.entrypoint, "--help"]) + " > /dev/null")
            size = sum(file.lstat().st_size for file in stage.path("/opt/trieway").rglob("*"))
            say(f"{name}: {shlex.join(stage.entrypoint)} starts; {size / 2**20:.0f} MB over the base image")


if __name__ == "__main__":
    main()
