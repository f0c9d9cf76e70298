"""``controller protect``: write the rules that keep other programs off configured targets."""

from __future__ import annotations

import click

from pydbt.cli.protecting import protect_configured
from pydbt.cli.volume_files import VOLUMES, volumes_folder
from pydbt.controller.protection import renew_initramfs
from pydbt.core.errors import BusyError, UsageError
from pydbt.core.printable import printable
from pydbt.device.checks import require_root


@click.command()
@click.option("--no-initramfs", is_flag=True, help="Leave the initial RAM disk as it is.")
def protect(no_initramfs: bool) -> int:
    """Keep other programs off configured targets.

    Writes /etc/udev/rules.d/62-pydbt-targets.rules and a filter of LVM for the target of each replica in
    /etc/pydbt/volumes, and puts both into the initial RAM disk. Replicas that are not configured any more, or were
    promoted, are left out. Repeating it changes nothing. Exit code 4: a target has no rule, or another program may still
    take it; each is told.
    """
    require_root("controller protect", "it writes rules of udev and LVM")
    if volumes_folder() != VOLUMES:
        raise UsageError(f"the rules are for the volumes in {VOLUMES}: run it without PYDBT_VOLUMES")
    done = protect_configured()
    for rule in done.rules:
        click.echo(printable(f"{rule.name}: {rule.path} is left alone, known by {rule.match.key} {rule.match.value}"))
    for path in done.changed:
        click.echo(f"{path} was {'written' if path.exists() else 'removed'}")
    if not no_initramfs and (words := renew_initramfs(done)):
        click.echo(words)
    if not done.changed:
        click.echo("nothing to change" if done.rules else "nothing to change: there is no replica on a device")
    for problem in done.problems:
        click.echo(printable(f"warning: {problem}"))
    if done.problems:
        raise BusyError(
            f"{len(done.problems)} of the warnings above need a change by you: then run 'controller protect' again"
        )
    return 0
