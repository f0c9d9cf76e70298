"""``controller pki``: certificates for the machines that may talk to each other."""

from __future__ import annotations

from pathlib import Path

import click

from pydbt.cli.values import PATH


@click.group()
def pki() -> None:
    """Make certificates for TLS.

    With them both sides prove who they are.
    """


@pki.command()
@click.argument("folder", type=PATH)
def init(folder: Path) -> int:
    """Make an authority in FOLDER.

    Keep it where only you have access: whoever has it can make any identity.
    """
    from pydbt.controller.pki import make_authority  # it brings a large library, which no other command needs

    click.echo(f"made {make_authority(folder)}")
    click.echo(f"next: controller pki issue {folder} NAME, once per machine")
    return 0


@pki.command()
@click.argument("folder", type=PATH)
@click.argument("name")
@click.option(
    "--days", type=click.IntRange(1, 36500), default=1825, show_default=True, help="Days for which it is valid."
)
@click.option("--replace", is_flag=True, help="Make another identity in the place of one that is there.")
def issue(folder: Path, name: str, days: int, replace: bool) -> int:
    """Make an identity for the machine NAME.

    It is made with the authority in FOLDER, as one file, for --identity on that machine. Every machine has its own.
    """
    from pydbt.controller.pki import issue as make
    from pydbt.network.tls import load_identity

    path = make(folder, name, days, replace=replace)
    click.echo(f"made {path}: copy it to {name}, readable by root alone, and give it to --identity there")
    state = load_identity(path).state
    ends, with_authority = state.ends.isoformat(timespec="seconds"), state.own.ends == state.authority.ends
    click.echo(f"it is valid until {ends}{', the end of its authority' if with_authority else ''}")
    return 0


@pki.command()
@click.argument("folder", type=PATH)
@click.argument("name")
def revoke(folder: Path, name: str) -> int:
    """Revoke the key of the machine NAME.

    Copy the list to the folder of every other machine's identity, and send its controllers SIGHUP.
    """
    from pydbt.controller.pki import revoke_key

    path, key = revoke_key(folder, name)
    click.echo(
        f"{key} is in {path}: copy that beside the identity of every other machine, and send its controllers SIGHUP"
    )
    click.echo(f"next: controller pki issue --replace {folder} {name}, which makes a new key")
    return 0
