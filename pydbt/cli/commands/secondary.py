"""``controller secondary``: keep a replica on a TARGET, in the foreground."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from pydbt.cli.once import OnceOption, was_typed
from pydbt.cli.place import ends_when_promoted, hooks_here, place_argument, side_here, typed_file
from pydbt.cli.role_command import RoleCommand, fixed_role_option, require_given
from pydbt.cli.serving import serve_in_role
from pydbt.cli.supervising import run_all_configured
from pydbt.cli.values import ADDRESS, PATH, SIZE
from pydbt.controller.options import SecondaryOptions
from pydbt.core.errors import UsageError
from pydbt.posix.service_manager import ServiceManager


def secondary_options(given: dict[str, Any]) -> SecondaryOptions:
    """The options of a secondary, of the values of the command's parameters. UsageError, OptionsRefused."""
    listen = given["listen"]
    if listen is None and not given["replay_only"]:
        raise UsageError("name the address at which to wait for the primary with --listen ADDR:PORT or unix:PATH")
    host, port = listen or ("127.0.0.1", 0)
    return SecondaryOptions(
        target=given["target"],
        listen_host=host,
        listen_port=port,
        state_dir=given["state_dir"],
        create_bytes=given["create_bytes"],
        identity=given["identity"],
        peer=given["peer"],
        new_peer_key=was_typed("peer"),
        insecure=given["insecure"],
        accept_sectors=given["accept_sectors"],
        accept_target=given["accept_target"],
        stage=not given["no_stage"],
        replay_only=given["replay_only"],
        journal_limit_bytes=given["journal_size"],
    )


@click.command(cls=RoleCommand, sections={}, options=secondary_options)
@place_argument("target")
@click.option("--listen", type=ADDRESS, metavar="ADDR:PORT|unix:PATH", help="Address at which to wait for the primary.")
@click.option("--state", "state_dir", type=PATH, metavar="DIR", help="The state directory; it is made when missing.")
@click.option(
    "--create",
    "create_bytes",
    type=SIZE,
    metavar="SIZE",
    help="Make TARGET, an image file, when missing.",
)
@click.option("--identity", type=PATH, metavar="FILE", help="This machine's identity, for TLS; see `pki`.")
@click.option(
    "--peer", metavar="NAME", help="The name in the primary's identity; by default the one that is proved first."
)
@click.option("--insecure", is_flag=True, help="Allow plain TCP: everybody who can reach the port is trusted.")
@click.option("--accept-sectors", is_flag=True, help="Accept a TARGET with larger logical blocks than SOURCE.")
@click.option("--accept-target", cls=OnceOption, is_flag=True, help="Accept this TARGET in the place of the known one.")
@click.option("--no-stage", is_flag=True, help="Resynchronize in place; TARGET is inconsistent meanwhile.")
@click.option("--replay-only", cls=OnceOption, is_flag=True, help="Apply the journal to TARGET, and end.")
@click.option(
    "--journal-size", type=SIZE, default="1G", show_default=True, help="Space for data that is not applied yet."
)
@fixed_role_option
@click.option(
    "--check", cls=OnceOption, is_flag=True, help="Check options, TARGET and identity, and end; nothing is changed."
)
def secondary(check: bool, **given: Any) -> int:
    """Keep a replica on a device or image file.

    Runs until it is stopped. TARGET, a block device or an image file, is overwritten, and must not be mounted or in use.
    TARGET may be the NAME of a replica in /etc/pydbt/volumes: without options, the role is that which its state records.
    Without TARGET every configured replica runs.

    `--replay-only` brings TARGET to its last consistent image, for reading. A mount writes: then the replica is inconsistent
    until its primary has compared all of it. To use it as a volume: `promote`.
    """
    if (code := run_all_configured(click.get_current_context(), given)) is not None:
        return code
    manager = ServiceManager.that_started_us()
    if (side := side_here()) is not None:
        return serve_in_role(side.options(), check, manager=manager, side=side)
    require_given(click.get_current_context(), "target", "state_dir")
    options = replace(secondary_options(given), volume_file=typed_file(), hooks=hooks_here())
    return serve_in_role(options, check, manager=manager, until_promoted=ends_when_promoted())
