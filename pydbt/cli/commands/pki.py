"""``controller pki``: certificates for the machines that may talk to each other."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from pydbt.cli.values import PATH

_DAYS = click.option(
    "--days",
    type=click.IntRange(1, 36500),
    default=1825,
    show_default=True,
    help="Days for which an identity is valid.",
)


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
@_DAYS
@click.option("--replace", is_flag=True, help="Make another identity in the place of one that is there.")
@click.option("--read-only", is_flag=True, help="It may look at dashboards, and do nothing else.")
def issue(folder: Path, name: str, days: int, replace: bool, read_only: bool) -> int:
    """Make an identity for the machine NAME.

    It is made with the authority in FOLDER, as one file, for --identity on that machine. Every machine has its own. One that is
    made with --read-only is for `controller dashboard --of` alone: no primary and no secondary accepts it.
    """
    from pydbt.controller.pki import issue as make
    from pydbt.network.tls import load_identity

    path = make(folder, name, days, replace=replace, read_only=read_only)
    click.echo(f"made {path}: copy it to {name}, readable by root alone, and give it to --identity there")
    state = load_identity(path, reading=True).state
    more = f", the end of its authority ('controller pki renew {folder}' makes both later)"
    click.echo(f"it is valid until {_when(state.ends)}{more if state.own.ends == state.authority.ends else ''}")
    return 0


@pki.command()
@click.argument("folder", type=PATH)
@_DAYS
def renew(folder: Path, days: int) -> int:
    """Renew an authority and its identities.

    The authority in FOLDER is valid for ten more years, and so is each identity in FOLDER for its days. All keys stay: identities
    of before and of now accept each other until the authority's earlier end.
    """
    from pydbt.controller.pki import renew_authority
    from pydbt.network.tls import load_identity

    done = renew_authority(folder, days)
    click.echo(f"made {done.certificate}: the same authority, valid until {_when(done.ends)}")
    for path in done.identities:
        click.echo(f"made {path}, valid until {_when(load_identity(path, reading=True).state.ends)}")
    for name in done.revoked:
        click.echo(
            f"left {name} as it is, whose key is revoked: 'controller pki issue --replace {folder} {name}' makes a new key"
        )
    if not done.identities:
        click.echo(
            f"next: copy the identity of each machine to {folder} and do this again; one made anew has another key"
        )
        return 0
    click.echo(
        "next: copy each identity to its machine, in the place of the earlier one, and send its controllers SIGHUP"
    )
    click.echo(
        f"identities of before and of now accept each other until {_when(done.ended)}"
        if done.ended > datetime.now(UTC)
        else f"the authority had expired at {_when(done.ended)}: no connection is made before both sides have theirs"
    )
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


def _when(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
