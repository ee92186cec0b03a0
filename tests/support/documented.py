"""What the documentation's pages hold: commands, files, queries, by the convention that docs/README.md states.

Pure: text in, blocks out. Called by tests/docs.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")] + sorted((ROOT / "docs").glob("*.md"))
PARSED_ONLY = ("gpu", "docker", "long")
"""The second word of a fence whose commands are not run here."""
READ_ONLY = ("text", "ini", "json", "yaml", "python", "promql", "toml")
"""Fences that hold no commands."""
_FENCE = re.compile(r"^ *```(.*)$")


class Unclear(Exception):
    """A block that the convention does not cover. Its message says where and what."""


@dataclass(frozen=True)
class Block:
    """One fence, or one run of indented lines (`info` is then "sh")."""

    page: Path
    line: int
    info: str
    text: str
    fenced: bool

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page.name}:{self.line}"


@dataclass(frozen=True)
class Step:
    """One thing to do on a page: a command line, a whole script (a fence `sh`), or a file to write (`name`)."""

    where: str
    text: str
    kind: str
    name: str = ""


def blocks(page: Path) -> Iterator[Block]:
    """Fences, and indented lines after an empty one."""
    lines = page.read_text("utf-8").splitlines()
    at = 0
    while at < len(lines):
        fence = _FENCE.match(lines[at])
        if fence:
            end = next(i for i in range(at + 1, len(lines)) if lines[i].strip() == "```")
            yield Block(page, at + 2, fence[1].strip(), "\n".join(lines[at + 1 : end]), fenced=True)
            at = end
        elif lines[at].startswith("    ") and (at == 0 or not lines[at - 1].strip()):
            end = at
            while end < len(lines) and lines[end].startswith("    "):
                end += 1
            yield Block(page, at + 1, "sh", "\n".join(line.strip() for line in lines[at:end]), fenced=False)
            at = end
        at += 1


def logical_lines(text: str) -> list[str]:
    """Command lines, with those joined that a backslash or an open quote continues. Comments and empty ones go."""
    found: list[str] = []
    for line in text.splitlines():
        if found and found[-1].endswith("\\"):
            found[-1] = found[-1].removesuffix("\\") + line.strip()
        elif found and _is_open(found[-1]):
            found[-1] += "\n" + line.strip()
        else:
            found.append(line.strip())
    return [line for line in found if line and not line.startswith("#")]


def _is_open(line: str) -> bool:
    try:
        shlex.split(line, comments=True)
    except ValueError:
        return True
    return False


def steps(page: Path) -> list[Step]:
    """What a reader of the page does, in order. Raises Unclear."""
    found: list[Step] = []
    for block in blocks(page):
        kind, _, rest = block.info.partition(" ")
        if kind == "sh" and rest in PARSED_ONLY:
            found += [Step(block.where, line, rest) for line in logical_lines(block.text)]
        elif kind == "sh" and not rest:
            lines = [block.text] if block.fenced else logical_lines(block.text)
            found += [Step(block.where, line, "run") for line in lines]
        elif kind == "toml" and rest:
            found.append(Step(block.where, block.text, "file", rest))
        elif kind not in READ_ONLY or rest:
            raise Unclear(f"{block.where}: say what ```{block.info} holds, see docs/README.md")
    return found


def queries(pages: Sequence[Path] = PAGES) -> list[tuple[str, str]]:
    """(where, query) of every PromQL block, one a line."""
    return [
        (block.where, line) for page in pages for block in blocks(page) if block.info == "promql"
        for line in block.text.splitlines() if line.strip()
    ]  # fmt: skip


def prose(page: Path) -> str:
    """The page without its blocks."""
    lines = page.read_text("utf-8").splitlines()
    for block in blocks(page):
        for number in range(block.line - 1, block.line - 1 + len(block.text.splitlines())):
            lines[number] = ""
    return "\n".join(lines)


def spans(page: Path) -> list[str]:
    """What stands in backticks on one line of prose."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(page))


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
