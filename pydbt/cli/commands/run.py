"""``controller run``: replicate a SOURCE, in the foreground."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from pydbt.cli.once import OnceOption, was_typed
from pydbt.cli.place import ends_when_promoted, hooks_here, place_argument, side_here, typed_file
from pydbt.cli.role_command import RoleCommand, fixed_role_option, require_given
from pydbt.cli.serving import serve_in_role
from pydbt.cli.supervising import run_all_configured
from pydbt.cli.values import ADDRESS, DURATION, ON_SILENCE, PATH, RATE, SIZE, SPACE
from pydbt.controller import options as defaults
from pydbt.controller.options import PrimaryOptions
from pydbt.core.seen.io_names import BLOCK_IO_WATCHES
from pydbt.core.seen.writers.attachment import ATTRIBUTIONS
from pydbt.core.tracking.memory_watch import MEMORY_WATCHES
from pydbt.posix.service_manager import ServiceManager

_SECTIONS = {
    "The volume": ("secondary", "state", "block-size"),
    "The connection": ("identity", "peer", "insecure", "accept-replica", "compress", "ack-timeout"),
    "The first copy, resynchronization and verification": (
        "whole-device", "assume-in-sync", "no-digests", "rate-limit", "verify-every",
    ),
    "How writes are followed": (
        "capture", "watch-memory", "epoch-interval", "freeze-limit", "snapshot-space", "era-interval",
    ),
    "Who writes, and block I/O": ("attribution", "block-io"),
    "Memory": ("log-size", "ring-size", "record-ring-size"),
    "The start": ("no-wait", "no-gate", "on-unreachable", "fixed-role", "check", "help"),
}  # fmt: skip


def primary_options(given: dict[str, Any]) -> PrimaryOptions:
    """The options of a primary, of the values of the command's parameters. OptionsRefused."""
    return PrimaryOptions(
        source=given["source"],
        secondaries=tuple(given["secondaries"]),
        state_dir=given["state_dir"],
        identity=given["identity"],
        peers=tuple(given["peers"]),
        new_peer_key=was_typed("peers"),
        insecure=given["insecure"],
        accept_replica=given["accept_replica"],
        block_bytes=given["block_size"],
        assume_in_sync=given["assume_in_sync"],
        whole_device=given["whole_device"],
        rate_limit_bytes_per_s=given["rate_limit"],
        verify_every_s=given["verify_every"],
        capture=given["capture"],
        watch_memory=given["watch_memory"],
        snapshot_interval_s=given["epoch_interval"],
        freeze_limit_s=given["freeze_limit"],
        snapshot_space=given["snapshot_space"],
        era_interval_s=given["era_interval"],
        attribution=given["attribution"],
        block_io=given["block_io"],
        compress=given["compress"],
        log_bytes=given["log_size"],
        data_ring_bytes=given["ring_size"],
        record_ring_bytes=given["record_ring_size"],
        compare_first=not given["no_digests"],
        acknowledge_timeout_s=given["ack_timeout"],
        wait_for_secondary=not given["no_wait"],
        on_unreachable=given["on_unreachable"],
    )


@click.command(cls=RoleCommand, sections=_SECTIONS, options=primary_options)
@place_argument("source")
@click.option(
    "--secondary",
    "secondaries",
    type=ADDRESS,
    multiple=True,
    metavar="ADDR:PORT|unix:PATH",
    help="Address of a secondary; give it once per secondary.",
)
@click.option("--state", "state_dir", type=PATH, metavar="DIR", help="The state directory; it is made when missing.")
@click.option("--identity", type=PATH, metavar="FILE", help="This machine's identity, for TLS; see `pki`.")
@click.option(
    "--peer",
    "peers",
    multiple=True,
    metavar="NAME",
    help="The name in the secondary's identity; by default the one that is proved first. Give it once per secondary.",
)
@click.option("--insecure", is_flag=True, help="Allow plain TCP: everybody who can reach the port is trusted.")
@click.option(
    "--accept-replica",
    cls=OnceOption,
    is_flag=True,
    help="Take another replica than the one on record; all of it is overwritten.",
)
@click.option("--block-size", type=SIZE, help="Size of a tracked block, 512 to 64K; 4K for a new volume.")
@click.option("--whole-device", is_flag=True, help="Copy free space too in the initial sync.")
@click.option(
    "--assume-in-sync", cls=OnceOption, is_flag=True, help="Assume that TARGET equals SOURCE now; it is not checked."
)
@click.option("--no-digests", is_flag=True, help="Copy blocks that may differ without comparing them first.")
@click.option(
    "--rate-limit",
    type=RATE,
    metavar="BYTES/s",
    help="Limit resynchronization and scheduled verification, for example to 20M/s.",
)
@click.option(
    "--verify-every",
    type=DURATION,
    metavar="TIME",
    help="Compare both sides at this interval, for example 7d or 12h; see `verify`.",
)
@click.option(
    "--capture",
    type=click.Choice(defaults.CAPTURES),
    default="payload",
    show_default=True,
    help="payload: replicate every write; addresses: capture no data, and copy an image at intervals.",
)
@click.option(
    "--watch-memory",
    type=click.Choice(MEMORY_WATCHES),
    default="on",
    show_default=True,
    help="Notice memory that changes during its direct write: always (on), where swap or guests are seen (auto), never (off).",
)
@click.option(
    "--epoch-interval",
    type=DURATION,
    default="10s",
    show_default=True,
    help="With addresses: the interval between images.",
)
@click.option(
    "--freeze-limit",
    type=DURATION,
    default="5s",
    show_default=True,
    help="With addresses: the longest time for which a file system is frozen.",
)
@click.option(
    "--snapshot-space",
    type=SPACE,
    metavar="SIZE|DEVICE",
    help="With addresses: the size of a snapshot on LVM (default: 1/20 of SOURCE), or on other device-mapper volumes its device.",
)
@click.option(
    "--era-interval",
    type=DURATION,
    default="60s",
    show_default=True,
    help="On a layer with dm-era: the interval between eras.",
)
@click.option(
    "--attribution",
    type=click.Choice(ATTRIBUTIONS),
    default="auto",
    show_default=True,
    help="Watch who writes: always, never (off), or while somebody looks and outside of mode normal (auto).",
)
@click.option(
    "--block-io",
    type=click.Choice(BLOCK_IO_WATCHES),
    default="auto",
    show_default=True,
    help="Watch latencies of block I/O: always, for metrics; never (off); or while somebody looks (auto).",
)
@click.option("--compress", is_flag=True, help="Compress data on the network with zstd.")
@click.option(
    "--ack-timeout",
    type=DURATION,
    default=defaults.DEFAULT_ACKNOWLEDGE_TIMEOUT_S,
    show_default=True,
    metavar="S",
    help="Close the connection after S seconds in which nothing was heard.",
)
@click.option("--log-size", type=SIZE, default="32M", show_default=True, help="Size of the transaction log.")
@click.option(
    "--ring-size", type=SIZE, default="64M", show_default=True, help="Kernel memory for data that is not sent yet."
)
@click.option("--record-ring-size", type=SIZE, default="16M", show_default=True, help="Kernel memory for records.")
@click.option("--no-wait", is_flag=True, help="End when a new volume's secondary cannot be reached (exit code 5).")
@click.option("--no-gate", is_flag=True, help="SOURCE is mounted without `gate`; `configcheck` accepts that.")
@click.option(
    "--on-unreachable",
    type=ON_SILENCE,
    default="wait 60s",
    show_default=True,
    metavar="WORDS",
    help="For `gate`, if a secondary is silent: `wait TIME` (and mount), `wait TIME, then refuse`, `mount`, `refuse`.",
)
@fixed_role_option
@click.option(
    "--check", cls=OnceOption, is_flag=True, help="Check options, SOURCE and identity, and end; nothing is changed."
)
def run(check: bool, **given: Any) -> int:
    """Replicate a block device to secondaries.

    SOURCE may be mounted. Runs in the foreground; Ctrl-C stops replication, but writes stay tracked for the next run
    (see `down`). SOURCE may be the NAME of a volume in /etc/pydbt/volumes: without options, the role is that which its state
    records. Without SOURCE every configured volume runs.
    """
    if (code := run_all_configured(click.get_current_context(), given)) is not None:
        return code
    manager = ServiceManager.that_started_us()
    if (side := side_here()) is not None:
        return serve_in_role(side.options(), check, manager=manager, side=side)
    require_given(click.get_current_context(), "source", "secondaries", "state_dir")
    options = replace(primary_options(given), volume_file=typed_file(), hooks=hooks_here())
    return serve_in_role(options, check, manager=manager, until_promoted=ends_when_promoted())
