"""``controller secondary``: keep a replica on a TARGET, in the foreground."""

from __future__ import annotations

from pathlib import Path

import click

from pydbt.cli.once import OnceOption, was_typed
from pydbt.cli.serving import serve_in_role
from pydbt.cli.values import ADDRESS, PATH, SIZE
from pydbt.controller.options import SecondaryOptions
from pydbt.core.errors import UsageError


@click.command()
@click.argument("target", type=PATH)
@click.option("--listen", type=ADDRESS, metavar="ADDR:PORT|unix:PATH", help="Address at which to wait for the primary.")
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
@click.option("--insecure", is_flag=True, help="Allow plain TCP, which proves nobody.")
@click.option("--accept-sectors", is_flag=True, help="Accept a TARGET with larger logical blocks than SOURCE.")
@click.option("--accept-target", cls=OnceOption, is_flag=True, help="Keep this TARGET with the state from now on.")
@click.option("--no-stage", is_flag=True, help="Resynchronize in place; TARGET is inconsistent meanwhile.")
@click.option("--replay-only", cls=OnceOption, is_flag=True, help="Apply the journal to TARGET, and end.")
@click.option(
    "--journal-size", type=SIZE, default="1G", show_default=True, help="Space for data that is not applied yet."
)
@click.option(
    "--check", cls=OnceOption, is_flag=True, help="Check options, TARGET and identity, and end; nothing is changed."
)
def secondary(
    target: Path,
    listen: tuple[str, int] | None,
    state_dir: Path,
    create_bytes: int | None,
    identity: Path | None,
    peer: str | None,
    insecure: bool,
    accept_sectors: bool,
    accept_target: bool,
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
        raise UsageError("name the address at which to wait for the primary with --listen ADDR:PORT or unix:PATH")
    host, port = listen or ("127.0.0.1", 0)
    chosen = SecondaryOptions(
        target=target,
        listen_host=host,
        listen_port=port,
        state_dir=state_dir,
        create_bytes=create_bytes,
        identity=identity,
        peer=peer,
        new_peer_key=was_typed("peer"),
        insecure=insecure,
        accept_sectors=accept_sectors,
        accept_target=accept_target,
        stage=not no_stage,
        replay_only=replay_only,
        journal_limit_bytes=journal_size,
    )
    return serve_in_role(chosen, check)
