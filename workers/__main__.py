"""`python -m workers`: the commands of this package without the rest of Trieway."""

from __future__ import annotations

from workers.cli import workers


def main() -> None:
    """Runs the command that the arguments name."""
    workers()


if __name__ == "__main__":
    main()
