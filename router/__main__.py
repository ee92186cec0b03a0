"""`python -m router`: the router's own commands, without those of the other packages."""

from router.cli import cli, commands

for command in commands:
    cli.add_command(command)
cli(prog_name="python -m router")
