"""The primary's record of its volume and its secondaries: ``volume.json`` in the state directory.

The file is one JSON object on several lines, and a last line ``xxh3_128 <digest>`` over the bytes before it. A person can
read it, and a torn or edited file is recognized.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID, uuid4

from pydbt.core.checksum import checked, with_checksum
from pydbt.core.errors import StateError, UsageError
from pydbt.core.protocol.frame_checks import NewerVersion, check_version
from pydbt.core.protocol.generations import NO_GENERATIONS, Generations
from pydbt.core.units import SECTOR_BYTES, Geometry
from pydbt.posix.atomic import replace_file
from pydbt.posix.disk_identity import differing_kinds
from pydbt.posix.ownership import read_own
from pydbt.store.secondary_record import SecondaryRecord
from pydbt.store.versions import newer

VOLUME_FILE_NAME = "volume.json"
_FORMAT = "pydbt volume"
_VERSION = 3
"""An entry more is a version more: a test holds the entries of this version."""
REMOVED_LIMIT = 64


class Source(Protocol):
    """The part of a source device that is used here; ``device.sysfs.BlockDevice`` has it."""

    @property
    def path(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    def identity(self) -> dict[str, str]:
        """The identifiers of the device that stay across reboots, by kind."""
        ...


@dataclass(frozen=True, slots=True)
class VolumeState:
    """One volume and its secondaries, as last written down.

    ``source`` holds the device's identifiers by kind (``BlockDevice.identity()``) when the state was made. ``removed`` are
    the addresses of former secondaries. ``boot_id`` and ``disk_sequence`` are the boot and the attachment of the device in
    which the programs track it; ``boot_id`` is empty when they may not be attached. ``clean`` is the marker of a clean stop,
    and None while the volume may be written untracked. ``audit`` is the state of the audit. ``generations`` is the history of
    the content, as a new secondary will receive it. ``last_written`` is about the moment of the last write that was captured.
    Of a replica that was promoted, ``common_until`` is the moment of its old primary up to which both are the same, and
    ``alone_since`` that of the promotion. ``more`` is room for entries of later versions.
    """

    volume: str
    size_bytes: int
    block_bytes: int
    source_path: str
    source: dict[str, str]
    secondaries: tuple[SecondaryRecord, ...] = ()
    removed: list[str] = field(default_factory=list)
    boot_id: str = ""
    disk_sequence: int | None = None
    clean: dict[str, Any] | None = None
    audit: dict[str, Any] | None = None
    generations: Generations = NO_GENERATIONS
    last_written: str = ""
    common_until: str = ""
    alone_since: str = ""
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        UUID(self.volume)
        _ = self.geometry
        for what in ("slot", "address"):
            if len({getattr(record, what) for record in self.secondaries}) < len(self.secondaries):
                raise ValueError(f"two secondaries have the same {what}")

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.size_bytes, self.block_bytes)

    @property
    def uuid(self) -> UUID:
        return UUID(self.volume)

    def record(self, slot: int) -> SecondaryRecord:
        return next(record for record in self.secondaries if record.slot == slot)

    def with_record(self, record: SecondaryRecord) -> VolumeState:
        """The state with this record in place of the record of the same slot, or behind the others."""
        kept = [record if other.slot == record.slot else other for other in self.secondaries]
        removed = [address for address in self.removed if address != record.address]
        return replace(self, secondaries=tuple(kept if record in kept else [*kept, record]), removed=removed)

    def without_record(self, slot: int) -> VolumeState:
        kept = tuple(record for record in self.secondaries if record.slot != slot)
        removed = dict.fromkeys([*self.removed, self.record(slot).address])
        return replace(self, secondaries=kept, removed=list(removed)[-REMOVED_LIMIT:])

    def free_slot(self) -> int:
        taken = {record.slot for record in self.secondaries}
        return next(slot for slot in range(1, len(taken) + 2) if slot not in taken)


def create_state(device: Source, block_bytes: int) -> VolumeState:
    """The state of a volume that was never replicated before. It is not written yet, and has no secondary."""
    return VolumeState(
        volume=uuid4().hex,
        size_bytes=device.size_bytes,
        block_bytes=block_bytes,
        source_path=device.path,
        source=device.identity(),
    )


def save_state(state_dir: str | os.PathLike[str], state: VolumeState) -> None:
    """Write the state, durably. StateError when it cannot be written."""
    replace_file(Path(state_dir) / VOLUME_FILE_NAME, encode_state(state))


def load_state(state_dir: str | os.PathLike[str]) -> VolumeState | None:
    """The state in a directory; None when it holds none. StateError when the file is torn or of another kind."""
    path = Path(state_dir) / VOLUME_FILE_NAME
    try:
        data = read_own(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return decode_state(data)
    except NewerVersion as error:
        raise newer(path, error) from None
    except (ValueError, TypeError, KeyError) as error:
        raise StateError(
            f"{path} is not a whole volume state ({error}): restore it, or begin again with an empty state directory"
        ) from error


def encode_state(state: VolumeState) -> bytes:
    """The bytes of ``volume.json``."""
    content: dict[str, Any] = {"format": _FORMAT, "version": _VERSION}
    content |= {entry.name: getattr(state, entry.name) for entry in fields(state)}
    content["generations"] = state.generations.to_values()
    content["secondaries"] = [record.to_values() for record in state.secondaries]
    return with_checksum(json.dumps(content, indent=2, ensure_ascii=True).encode() + b"\n")


def decode_state(data: bytes) -> VolumeState:
    """The state in the bytes of ``volume.json``. NewerVersion, ValueError, TypeError or KeyError when they are wrong."""
    content = json.loads(checked(data))
    if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
        raise ValueError("it is a file of another kind")
    if check_version(content.pop("version", None), _VERSION) == 1:
        content = _of_version_1(content)
    known = {entry.name for entry in fields(VolumeState)}
    if unknown := sorted(set(content) - known):
        raise ValueError(f"it has unknown entries: {', '.join(unknown)}")
    content["secondaries"] = tuple(SecondaryRecord.from_values(values) for values in content["secondaries"])
    if "generations" in content:
        content["generations"] = Generations.from_values(content["generations"])
    return VolumeState(**content)


def _of_version_1(content: dict[str, Any]) -> dict[str, Any]:
    """In version 1 a volume had at most one secondary, whose entries lay among those of the volume."""
    names = ("phase", "replica", "epoch", "sequence", "later_epochs", "taints", "verify", "compared_whole")
    record = {name: content.pop(name) for name in names if name in content}
    host, colon, port = content.pop("secondary").rpartition(":")
    record |= {"slot": 1, "address": f"[{host}]{colon}{port}" if ":" in host else f"{host}{colon}{port}"}
    if "generations" in content:
        record["generations"] = content["generations"]
    return {**content, "secondaries": [record] if record["address"] else []}


def _larger_than_its_volume(state: VolumeState, path: str) -> str:
    """The remedy, as part of a sentence, for a device that is larger than its volume.

    It is refused: a file system that grew beyond the volume would be replicated in part. A promoted TARGET, which no run
    has used yet, may have been larger from the start; any other device has grown, and its file system with it.
    """
    anew = "begin again with empty state directories on both sides (equal blocks are compared and not copied)"
    if state.secondaries:
        return f"it has grown, which is not supported yet: run 'controller down {path}', and {anew}"
    table = f"0 {state.size_bytes // SECTOR_BYTES} linear {path} 0"
    command = f"""dmsetup create NAME --table "{table}\""""
    return (
        "if its file system was not grown since the promotion, make a device of exactly the volume's size over it "
        f"('{command}'), and mount and name that one; otherwise {anew}"
    )


def require_same_source(
    state: VolumeState,
    device: Source,
    state_dir: str | os.PathLike[str],
    block_bytes: int | None = None,
    *,
    as_target: bool = False,
) -> VolumeState:
    """The state with the device's present path, when it was kept for this device.

    ``block_bytes`` is the size that the operator asked for, or None. ``as_target``: the device will be a replica, which may
    be larger than the volume. UsageError names the difference; an identifier that either side lacks is no difference.
    """
    remedy = "name the SOURCE that it belongs to, or begin again with an empty directory"
    if state.size_bytes < device.size_bytes and not as_target:
        raise UsageError(
            f"the state directory {state_dir} was kept for a volume of {state.size_bytes} bytes, and {device.path} "
            f"has {device.size_bytes}: {_larger_than_its_volume(state, device.path)}; or name the SOURCE that it belongs to"
        )
    if state.size_bytes > device.size_bytes:
        raise UsageError(
            f"the state directory {state_dir} was kept for a volume of {state.size_bytes} bytes, and {device.path} "
            f"has {device.size_bytes}: {remedy}"
        )
    now = device.identity()
    for kind in differing_kinds(state.source, now):
        raise UsageError(
            f"the state directory {state_dir} was kept for a SOURCE with {kind} {state.source[kind]}, and "
            f"{device.path} has {now[kind]}: {remedy}"
        )
    if block_bytes is not None and block_bytes != state.block_bytes:
        raise UsageError(
            f"the volume in {state_dir} is tracked in blocks of {state.block_bytes} bytes, not {block_bytes}: "
            "leave --block-size out, or begin again with an empty state directory"
        )
    return replace(state, source_path=device.path)
