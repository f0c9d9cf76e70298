"""``controller secondary``: keep a replica on a TARGET, in the foreground."""

from __future__ import annotations

from pathlib import Path

import click

from pydbt.cli.logs import name_lines
from pydbt.cli.own_target import refuse_live_source
from pydbt.cli.serving import heeding_sigterm
from pydbt.cli.values import ADDRESS, PATH, SIZE
from pydbt.controller.options import SecondaryOptions
from pydbt.controller.registry import registered_secondary
from pydbt.controller.secondary.journal_room import require_journal_room
from pydbt.core.errors import UsageError
from pydbt.device.checks import check_target
from pydbt.network.address import check_plain_tcp
from pydbt.network.listen import listen as listen_at
from pydbt.network.tls import load_identity


@click.command()
@click.argument("target", type=PATH)
@click.option("--listen", type=ADDRESS, metavar="ADDR:PORT", help="Address at which to wait for the primary.")
@click.option("--state", "state_dir", type=PATH, required=True, help="The state directory; it is made when missing.")
@click.option(
    "--create",
    "create_bytes",
    type=SIZE,
    metavar="SIZE",
    help="Make TARGET, an image file, when missing.",
)
@click.option(
    "--identity", type=PATH, metavar="FILE", help="Use TLS, with this certificate of this machine; see `pki`."
)
@click.option("--peer", metavar="NAME", help="The name that the primary must prove; by default its first name is kept.")
@click.option("--insecure", is_flag=True, help="Allow plain TCP with other machines.")
@click.option("--no-stage", is_flag=True, help="Resynchronize in place; TARGET is inconsistent meanwhile.")
@click.option("--replay-only", is_flag=True, help="Apply the journal to TARGET, and end.")
@click.option(
    "--journal-size", type=SIZE, default="1G", show_default=True, help="Space for data that is not applied yet."
)
@click.option("--check", is_flag=True, help="Check options, TARGET and identity, and end; nothing is changed.")
def secondary(
    target: Path,
    listen: tuple[str, int] | None,
    state_dir: Path,
    create_bytes: int | None,
    identity: Path | None,
    peer: str | None,
    insecure: bool,
    no_stage: bool,
    replay_only: bool,
    journal_size: int,
    check: bool,
) -> int:
    """Keep a replica on a device or image file.

    Runs until it is stopped. TARGET, a block device or an image file, is overwritten, and must not be mounted or in use.
    After `--replay-only` its last consistent state may be used.
    """
    if listen is None and not replay_only:
        raise UsageError("name the address at which to wait for the primary with --listen ADDR:PORT")
    host, port = listen or ("127.0.0.1", 0)
    chosen = SecondaryOptions(
        target=target,
        listen_host=host,
        listen_port=port,
        state_dir=state_dir,
        create_bytes=create_bytes,
        identity=identity,
        peer=peer,
        insecure=insecure,
        stage=not no_stage,
        replay_only=replay_only,
        journal_limit_bytes=journal_size,
    )
    with heeding_sigterm():
        return _start(chosen, check)


def _start(chosen: SecondaryOptions, only_check: bool) -> int:
    name_lines(chosen.target)
    target, state_dir, (host, port) = chosen.target, chosen.state_dir, chosen.listen
    check_target(target, state_dir=state_dir, create_bytes=chosen.create_bytes)
    if not chosen.replay_only:
        require_journal_room(state_dir, chosen.journal_limit_bytes)
        if chosen.identity is None:
            check_plain_tcp(host, chosen.insecure)
        else:
            load_identity(chosen.identity)
        if port:
            # A port in use must be found before an image or a state directory is made.
            listen_at(host, port).close()
    if only_check:
        click.echo(f"{target} could be a replica: options, target, port and identity are right")
        return 0
    with registered_secondary(target, state_dir, host, port, keep=not chosen.replay_only):
        refuse_live_source(target)  # once registered: of two that start at the same time, at least one finds the other
        # Only now: no other command needs it.
        from pydbt.controller.secondary.service import run_secondary

        return run_secondary(chosen)
