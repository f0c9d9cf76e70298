"""The options of a primary and of a secondary, checked once, as plain data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydbt.core.configured.on_unreachable import WAIT_THEN_MOUNT, OnUnreachable
from pydbt.core.errors import UsageError
from pydbt.core.protocol.heartbeat import HEARTBEAT_S
from pydbt.core.seen.hooks import NO_HOOKS, Hooks
from pydbt.core.seen.io_names import BLOCK_IO_WATCHES
from pydbt.core.seen.writers.attachment import ATTRIBUTIONS
from pydbt.core.tracking.memory_watch import MEMORY_WATCHES
from pydbt.core.units import KIB, MAX_BLOCK_BYTES, MIB, MIN_BLOCK_BYTES, exact_bytes
from pydbt.kernel.spec import MAX_RING_BYTES
from pydbt.network.address import unix_path
from pydbt.posix.service_manager import NO_MANAGER, ServiceManager

if TYPE_CHECKING:
    from pydbt.network.listen import Listener

DEFAULT_BLOCK_BYTES = 4096
# One slot of 64 bytes per write request and one for its end: a quarter of a million requests under way.
DEFAULT_LOG_BYTES = 32 * MIB
MIN_LOG_BYTES = 4 * KIB
MAX_LOG_BYTES = 1 << 35
# For the data of writes that are captured and not sent yet.
DEFAULT_DATA_RING_BYTES = 64 * MIB
# One record of 64 bytes for each submission and each completion.
DEFAULT_RECORD_RING_BYTES = 16 * MIB
# The kernel takes ring sizes that are powers of two and multiples of the page.
MIN_RING_BYTES = 4 * KIB
DEFAULT_ACKNOWLEDGE_TIMEOUT_S = 15.0
DEFAULT_SNAPSHOT_INTERVAL_S = 10.0
# Writers wait while a file system is frozen; most programs tolerate more than this.
DEFAULT_FREEZE_LIMIT_S = 5.0
# After a power loss the writes of about this time are compared. Each era costs a commit at the first write to a region.
DEFAULT_ERA_INTERVAL_S = 60.0
# A comparison of everything that begins again as soon as it ends is no schedule.
MIN_VERIFY_EVERY_S = 60.0
MIN_INTERVAL_S = 1.0
# Less than a file system needs to become quiet, so that no image would ever be made.
MIN_FREEZE_LIMIT_S = 0.1
ALLOW_SHORT_TIMES = "PYDBT_SHORT_TIMES"
"""In the environment of tests, which do not wait for a minute: any time of more than 0 is accepted."""
DEFAULT_JOURNAL_BYTES = 1024 * MIB
MIN_JOURNAL_BYTES = 16 * MIB
# The largest size of a file.
MAX_IMAGE_BYTES = (1 << 63) - 512

CAPTURES = ("payload", "addresses")

Fault = tuple[str, str]
"""An option, with its dashes, and the sentence about what is wrong with it."""


class OptionsRefused(UsageError):
    """Some options are wrong. The message is about the first of ``faults``."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__(faults[0][1])
        self.faults = faults


class Shown(Protocol):
    """A report of the volume, as people's programs read it."""

    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class PrimaryOptions:
    """How one volume is replicated.

    ``secondaries`` are their addresses, host and port; ``block_bytes`` None takes the size of the state directory's volume,
    or 4096 for a new volume. ``rate_limit_bytes_per_s`` bounds resynchronization and scheduled verification; None is no
    bound. ``verify_every_s`` is the interval between scheduled verifications. ``identity`` is the file of this machine's
    certificate, for TLS; ``peers`` the names that the secondaries must prove, one per secondary in their order, or none;
    ``new_peer_key`` lets a machine of that name have another key than the one on record, once;
    ``accept_replica`` lets another replica than the one on record answer, once.
    ``capture`` ``addresses`` captures no data: an image is copied every ``snapshot_interval_s``, and file systems are frozen
    for ``freeze_limit_s`` at most; ``snapshot_space`` is the size of a snapshot of LVM in bytes (None: a share of the
    volume), or the device that stores a snapshot of another device-mapper volume. On a layer with dm-era a new era is
    begun every ``era_interval_s``. ``attribution``: when it is watched who writes; ``block_io``: and block I/O;
    ``watch_memory``: when a change of a program's memory during its direct write is noticed.
    ``wait_for_secondary``: a new volume waits
    for its secondaries, as later runs do. ``report`` is called with each new report while the service runs.
    ``manager`` is told that it runs. ``volume_file`` is the file of ``/etc/pydbt/volumes`` that configures it, if one does.
    ``on_unreachable``: what is done before the volume is mounted, where a secondary does not answer; a run itself asks for
    nothing. ``hooks``: the programs that are run when something changes. ``afterwards``: how this side is the secondary after a
    change of places, where its file says that.
    """

    source: Path
    secondaries: tuple[tuple[str, int], ...]
    state_dir: Path
    insecure: bool = False
    accept_replica: bool = False
    block_bytes: int | None = None
    assume_in_sync: bool = False
    whole_device: bool = False
    rate_limit_bytes_per_s: int | None = None
    compress: bool = False
    log_bytes: int = DEFAULT_LOG_BYTES
    data_ring_bytes: int = DEFAULT_DATA_RING_BYTES
    record_ring_bytes: int = DEFAULT_RECORD_RING_BYTES
    compare_first: bool = True
    acknowledge_timeout_s: float = DEFAULT_ACKNOWLEDGE_TIMEOUT_S
    verify_every_s: float | None = None
    capture: str = "payload"
    snapshot_interval_s: float = DEFAULT_SNAPSHOT_INTERVAL_S
    freeze_limit_s: float = DEFAULT_FREEZE_LIMIT_S
    snapshot_space: int | str | None = None
    era_interval_s: float = DEFAULT_ERA_INTERVAL_S
    attribution: str = "auto"
    block_io: str = "auto"
    watch_memory: str = "on"
    identity: Path | None = None
    peers: tuple[str, ...] = ()
    new_peer_key: bool = False
    wait_for_secondary: bool = True
    volume_file: Path | None = None
    on_unreachable: OnUnreachable = WAIT_THEN_MOUNT
    hooks: Hooks = NO_HOOKS
    report: Callable[[Shown], None] | None = None
    manager: ServiceManager = field(default=NO_MANAGER, compare=False, repr=False)
    afterwards: SecondaryOptions | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        _refuse_all([*self._of_the_connection(), *self._of_the_sizes(), *self._of_the_times()])

    def _of_the_connection(self) -> Iterator[Fault]:
        for host, port in self.secondaries:
            yield from _port_faults(host, port, "--secondary")
        if not self.secondaries:
            yield "--secondary", "a volume needs a secondary: name its address with --secondary ADDR:PORT"
        if len(set(self.secondaries)) < len(self.secondaries):
            yield "--secondary", "--secondary names one address twice: every secondary has its own"
        if self.peers and len(self.peers) != len(self.secondaries):
            yield (
                "--peer",
                f"--peer is given {len(self.peers)} times for {len(self.secondaries)} secondaries: give one per --secondary, "
                "in their order, or none",
            )
        yield from _identity_faults(self.identity, self.peers)

    def _of_the_sizes(self) -> Iterator[Fault]:
        if self.block_bytes is not None and not _power_of_two(self.block_bytes, MIN_BLOCK_BYTES, MAX_BLOCK_BYTES):
            yield (
                "--block-size",
                f"--block-size is {exact_bytes(self.block_bytes)}, which is no power of two from "
                f"{exact_bytes(MIN_BLOCK_BYTES)} to {exact_bytes(MAX_BLOCK_BYTES)}",
            )
        for name, size in (("--ring-size", self.data_ring_bytes), ("--record-ring-size", self.record_ring_bytes)):
            if not _power_of_two(size, MIN_RING_BYTES, MAX_RING_BYTES):
                yield (
                    name,
                    f"{name} is {exact_bytes(size)}, which is no power of two from {exact_bytes(MIN_RING_BYTES)} to "
                    f"{exact_bytes(MAX_RING_BYTES)}",
                )
        if not MIN_LOG_BYTES <= self.log_bytes <= MAX_LOG_BYTES:
            yield (
                "--log-size",
                f"--log-size is {exact_bytes(self.log_bytes)}, which is not from {exact_bytes(MIN_LOG_BYTES)} to "
                f"{exact_bytes(MAX_LOG_BYTES)}",
            )
        if self.rate_limit_bytes_per_s is not None and self.rate_limit_bytes_per_s <= 0:
            yield "--rate-limit", "--rate-limit must be more than 0 bytes per second; leave it out for no limit"
        if isinstance(self.snapshot_space, int) and self.snapshot_space < MIB:
            yield (
                "--snapshot-space",
                f"--snapshot-space is {exact_bytes(self.snapshot_space)}, less than 1 MiB, which one write may fill",
            )

    def _of_the_times(self) -> Iterator[Fault]:
        for name, seconds, least_s in (
            ("--ack-timeout", self.acknowledge_timeout_s, HEARTBEAT_S),
            ("--verify-every", self.verify_every_s, MIN_VERIFY_EVERY_S),
            ("--epoch-interval", self.snapshot_interval_s, MIN_INTERVAL_S),
            ("--freeze-limit", self.freeze_limit_s, MIN_FREEZE_LIMIT_S),
            ("--era-interval", self.era_interval_s, MIN_INTERVAL_S),
        ):
            if seconds is not None and (seconds <= 0 or (seconds < least_s and not os.environ.get(ALLOW_SHORT_TIMES))):
                yield name, f"{name} is {seconds:g} s, and must be at least {least_s:g} s"
        if self.capture not in CAPTURES:
            yield "--capture", f"--capture {self.capture} is none of {' and '.join(CAPTURES)}"
        if self.attribution not in ATTRIBUTIONS:
            yield "--attribution", f"--attribution {self.attribution} is none of {', '.join(ATTRIBUTIONS)}"
        if self.block_io not in BLOCK_IO_WATCHES:
            yield "--block-io", f"--block-io {self.block_io} is none of {', '.join(BLOCK_IO_WATCHES)}"
        if self.watch_memory not in MEMORY_WATCHES:
            yield "--watch-memory", f"--watch-memory {self.watch_memory} is none of {', '.join(MEMORY_WATCHES)}"
        if self.assume_in_sync and self.whole_device:
            yield (
                "--assume-in-sync",
                "--assume-in-sync copies nothing, and --whole-device copies everything: give one of them",
            )


@dataclass(frozen=True, slots=True)
class SecondaryOptions:
    """How one replica is kept. ``create_bytes`` makes a missing image file of that size.

    ``stage`` keeps the last consistent image usable during a resynchronization when there is room.
    ``replay_only`` applies the journal to the target and ends; ``promote`` does so and makes the target a volume of its
    own; ``listen_port`` 0 takes a free port. ``peer`` and ``new_peer_key`` are as of a primary. ``accept_sectors``: logical
    blocks larger than the source's are accepted. ``accept_target``: the state directory may have been kept for another target.
    ``fixed_listen``: its file says the address. ``listener`` listens there already: who changes places takes it in advance.
    ``manager`` is told that it runs.
    ``until_promoted``: it ends when its replica was promoted; else the same process goes on, in the role that the state
    records then. ``hooks`` and ``volume_file`` are as of a primary. ``afterwards``: how this side is the primary after a
    change of places, where its file says that.
    """

    target: Path
    listen_host: str
    listen_port: int
    state_dir: Path
    create_bytes: int | None = None
    insecure: bool = False
    stage: bool = True
    replay_only: bool = False
    promote: bool = False
    journal_limit_bytes: int = DEFAULT_JOURNAL_BYTES
    identity: Path | None = None
    peer: str | None = None
    new_peer_key: bool = False
    accept_sectors: bool = False
    accept_target: bool = False
    until_promoted: bool = True
    fixed_listen: bool = False
    hooks: Hooks = NO_HOOKS
    volume_file: Path | None = None
    listener: Listener | None = field(default=None, compare=False, repr=False)
    manager: ServiceManager = field(default=NO_MANAGER, compare=False, repr=False)
    afterwards: PrimaryOptions | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        _refuse_all(list(self._faults()))

    def _faults(self) -> Iterator[Fault]:
        if self.listen_port:
            yield from _port_faults(self.listen_host, self.listen_port, "--listen")
        if self.create_bytes is not None and not (
            0 < self.create_bytes <= MAX_IMAGE_BYTES and self.create_bytes % 512 == 0
        ):
            yield (
                "--create",
                f"--create is {exact_bytes(self.create_bytes)}, which is no multiple of 512 bytes below 8 EiB",
            )
        if self.journal_limit_bytes < MIN_JOURNAL_BYTES:
            yield (
                "--journal-size",
                f"--journal-size is {exact_bytes(self.journal_limit_bytes)}, less than the least journal of "
                f"{exact_bytes(MIN_JOURNAL_BYTES)}",
            )
        yield from _identity_faults(self.identity, self.peer)

    @property
    def listen(self) -> tuple[str, int]:
        return self.listen_host, self.listen_port


def _refuse_all(faults: list[Fault]) -> None:
    if faults:
        raise OptionsRefused(faults)


def _port_faults(host: str, port: int, option: str) -> Iterator[Fault]:
    if unix_path(host) is None and not 1 <= port <= 65535:
        yield option, f"{option} names port {port}, and ports go from 1 to 65535"


def _identity_faults(identity: Path | None, peer: object) -> Iterator[Fault]:
    if peer and identity is None:
        yield (
            "--peer",
            "--peer is the name that the other machine proves, and without --identity nobody proves any: give both",
        )


def _power_of_two(value: int, least: int, most: int) -> bool:
    return least <= value <= most and value & (value - 1) == 0
