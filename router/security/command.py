"""`trieway keys`: make API keys. The key is printed once; only its hash goes into the file. Called by cli."""

from __future__ import annotations

import os
from pathlib import Path

import click

from router.errors import RouterError
from router.security.client import Client
from router.security.keys_file import entry, is_name, new_key, read_keys_file


@click.group()
def keys() -> None:
    """Make API keys for clients and admins."""


@keys.command()
@click.argument("name")
@click.option("--file", "path", type=click.Path(path_type=Path, dir_okay=False), required=True,
              help="Keys file to add it to (security.api_keys_file); made when it is not there.")
@click.option("--model", "models", multiple=True, help="A model it may use; again for more. Without: all.")
@click.option("--rate", "rate_per_s", type=click.FloatRange(0, min_open=True), help="Requests it may start a second.")
@click.option("--concurrency", type=click.IntRange(1), help="Requests it may have at once.")
@click.option("--priority", type=click.IntRange(-3, 3), default=0, show_default=True,
              help="Each step is worth four times the share when requests must wait.")
@click.option("--admin", is_flag=True, help="A key for /workers and other control routes, not for model calls.")
def new(
    name: str,
    path: Path,
    models: tuple[str, ...],
    rate_per_s: float | None,
    concurrency: int | None,
    priority: int,
    admin: bool,
) -> None:
    """Make a key for NAME, print it, and add its hash to the file."""
    if not is_name(name):
        raise click.BadParameter("1 to 64 letters, digits, '-', '_' or '.'", param_hint="NAME")
    client = Client(
        name=name,
        models=frozenset(models) if models else None,
        rate_per_s=rate_per_s,
        concurrency=concurrency,
        priority=priority,
        admin=admin,
    )
    try:
        taken = path.exists() and path.stat().st_size > 0 and any(
            other.name == name for other in read_keys_file(path).values()
        )
    except RouterError as error:
        raise click.ClickException(error.message) from error
    if taken:
        raise click.ClickException(f"{path} has a key for {name} already.")
    key = new_key()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8") as file:
        file.write(("\n" if file.tell() else "") + entry(key, client))
    click.echo(f"Added {name} to {path}. Its key is stored nowhere and cannot be shown again:", err=True)
    click.echo(key)
