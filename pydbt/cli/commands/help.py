"""``controller help``: what ``--help`` prints, for those who ask for it this way."""

from __future__ import annotations

import click


@click.command("help")
@click.argument("command", nargs=-1)
@click.pass_context
def show_help(context: click.Context, command: tuple[str, ...]) -> int:
    """Print the help of the program or a command.

    `controller help run` prints the same as `controller run --help`.
    """
    shown = context.find_root()
    for name in command:
        group = shown.command
        if not isinstance(group, click.Group):
            break
        found, subcommand, _ = group.resolve_command(shown, [name])
        assert subcommand is not None
        shown = click.Context(subcommand, parent=shown, info_name=found)
    click.echo(shown.get_help())
    return 0
