"""`python -m workers.sglang.cpu`: one real SGLang server on this machine's CPU until Ctrl-C, to try things by hand."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click

from workers.sglang.cpu.flavours import FLAVOURS
from workers.sglang.cpu.server import CpuServer, ServerFailed, default_environment


@click.command()
@click.option("--port", type=int, default=30000, show_default=True, help="Port to listen on.")
@click.option("--flavour", type=click.Choice(sorted(FLAVOURS)), default="open", show_default=True, help="Which flags.")
@click.option(
    "--environment", type=click.Path(path_type=Path), help="What setup.sh made; .cache/sglang-cpu unless given."
)
@click.option("--log", type=click.Path(path_type=Path), help="Log file; sglang-cpu-PORT.log in the environment.")
def main(port: int, flavour: str, environment: Path | None, log: Path | None) -> None:
    """Run a real SGLang server with a tiny random model on the CPU; its text is noise."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its children end with it however it is told to stop
    environment = (environment or default_environment()).resolve()
    server = CpuServer(FLAVOURS[flavour], environment, log or environment / f"sglang-cpu-{port}.log", port)
    try:
        server.start()
        click.echo(f"starting SGLang; log in {server.log}")
        server.wait_ready()
        click.echo(f"ready: {server.url}")
        sys.exit(server.wait())
    except ServerFailed as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("stopping")
    finally:
        server.stop()


if __name__ == "__main__":
    main()
