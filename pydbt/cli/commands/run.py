"""``controller run``: replicate a SOURCE, in the foreground."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import click

from pydbt.cli.own_target import refuse_own_target
from pydbt.cli.progress import ProgressReporter
from pydbt.cli.values import ADDRESS, DURATION, PATH, RATE, SECONDS, SIZE, SPACE
from pydbt.cli.view import View
from pydbt.controller import options as defaults
from pydbt.controller.options import PrimaryOptions
from pydbt.controller.registry import registered_primary
from pydbt.device.checks import check_source
from pydbt.network.address import check_plain_tcp
from pydbt.network.tls import load_identity


@click.command()
@click.argument("source", type=PATH)
@click.option(
    "--secondary",
    "secondaries",
    type=ADDRESS,
    required=True,
    multiple=True,
    metavar="ADDR:PORT",
    help="Address of a secondary; give it once per secondary.",
)
@click.option("--state", "state_dir", type=PATH, required=True, help="The state directory; it is made when missing.")
@click.option(
    "--identity", type=PATH, metavar="FILE", help="Use TLS, with this certificate of this machine; see `pki`."
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    metavar="NAME",
    help="The name that the secondary must prove; by default its first name is kept.",
)
@click.option("--insecure", is_flag=True, help="Allow plain TCP with other machines.")
@click.option("--block-size", type=SIZE, help="Size of a tracked block, 512 to 64K; 4K for a new volume.")
@click.option("--whole-device", is_flag=True, help="Copy free space too in the initial sync.")
@click.option("--assume-in-sync", is_flag=True, help="Assume that TARGET equals SOURCE now; it is not checked.")
@click.option("--no-digests", is_flag=True, help="Copy blocks that may differ without comparing them first.")
@click.option("--rate-limit", type=RATE, metavar="BYTES/s", help="Limit resynchronization, for example to 20M/s.")
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
@click.option("--epoch-interval", type=DURATION, default="10s", show_default=True, help="With addresses: the interval.")
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
@click.option("--compress", is_flag=True, help="Compress data on the network with zstd.")
@click.option(
    "--ack-timeout",
    type=SECONDS,
    default=defaults.DEFAULT_ACKNOWLEDGE_TIMEOUT_S,
    show_default=True,
    metavar="S",
    help="Close the connection after S seconds without an acknowledgement.",
)
@click.option("--log-size", type=SIZE, default="32M", show_default=True, help="Size of the transaction log.")
@click.option(
    "--ring-size", type=SIZE, default="64M", show_default=True, help="Kernel memory for data that is not sent yet."
)
@click.option("--record-ring-size", type=SIZE, default="16M", show_default=True, help="Kernel memory for records.")
def run(
    source: Path,
    secondaries: tuple[tuple[str, int], ...],
    state_dir: Path,
    identity: Path | None,
    peers: tuple[str, ...],
    insecure: bool,
    block_size: int | None,
    whole_device: bool,
    assume_in_sync: bool,
    no_digests: bool,
    rate_limit: int | None,
    verify_every: float | None,
    capture: str,
    epoch_interval: float,
    freeze_limit: float,
    snapshot_space: int | str | None,
    era_interval: float,
    compress: bool,
    ack_timeout: float,
    log_size: int,
    ring_size: int,
    record_ring_size: int,
) -> int:
    """Replicate a block device to secondaries.

    SOURCE may be mounted. Runs in the foreground; Ctrl-C stops replication, but writes stay tracked for the next run
    (see `down`).
    """
    progress = ProgressReporter(sys.stderr)
    chosen = PrimaryOptions(
        source=source,
        secondaries=tuple(secondaries),
        state_dir=state_dir,
        identity=identity,
        peers=tuple(peers),
        insecure=insecure,
        block_bytes=block_size,
        assume_in_sync=assume_in_sync,
        whole_device=whole_device,
        rate_limit_bytes_per_s=rate_limit,
        verify_every_s=verify_every,
        capture=capture,
        epoch_interval_s=epoch_interval,
        freeze_limit_s=freeze_limit,
        snapshot_space=snapshot_space,
        era_interval_s=era_interval,
        compress=compress,
        log_bytes=log_size,
        data_ring_bytes=ring_size,
        record_ring_bytes=record_ring_size,
        compare_first=not no_digests,
        acknowledge_timeout_s=ack_timeout,
        report=lambda report: progress.update(View(report.to_json())),
    )
    return _start(chosen, progress)


def _start(chosen: PrimaryOptions, progress: ProgressReporter) -> int:
    device = check_source(chosen.source, chosen.state_dir)
    if chosen.identity is not None:
        load_identity(chosen.identity)
    for address in chosen.secondaries:
        if chosen.identity is None:
            check_plain_tcp(address[0], chosen.insecure)
        refuse_own_target(device, address, chosen.state_dir)
    with _heeding_sigterm(), registered_primary(device, chosen.state_dir), progress:
        # Only now: it brings the eBPF side, which no other command needs.
        from pydbt.controller.primary.service import run_primary

        return run_primary(chosen)


@contextlib.contextmanager
def _heeding_sigterm() -> Iterator[None]:
    """Until the loop runs and listens to it, SIGTERM undoes what the start has done, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
