"""What the primary remembers of its volume: ``volume.json`` in the state directory.

The file is one JSON object on several lines and a last line ``xxh3_128 <digest>`` over the bytes before it,
so that a person can read it and a torn or edited file is told.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID, uuid4

import xxhash

from pydbt.core.errors import StateError, UsageError
from pydbt.core.generations import NO_GENERATIONS, Generations
from pydbt.core.units import Geometry
from pydbt.store.atomic import replace_file

VOLUME_FILE_NAME = "volume.json"
_FORMAT = "pydbt volume"
_VERSION = 1
_CHECKSUM = b"xxh3_128 "


class Source(Protocol):
    """What is asked of a source device here; a ``BlockDevice`` of the device room is one."""

    @property
    def path(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    def identity(self) -> dict[str, str]:
        """What identifies the device across reboots, by kind of identifier."""
        ...


class SyncPhase(StrEnum):
    """How far the replica has ever come.

    ``INITIAL``: never in sync. ``REPLICATING``: in sync once, so that the maps tell what differs.
    ``ASSUMED``: as ``REPLICATING``, on the operator's word alone (``--assume-in-sync``).
    """

    INITIAL = "initial"
    REPLICATING = "replicating"
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class VolumeState:
    """One volume and its replica, as last written down.

    ``source`` is what identifies the device, by kind (``BlockDevice.identity()``), when the state was made.
    ``replica``, ``epoch`` and ``sequence`` are what the secondary last called itself and its position;
    ``replica`` is empty before the first handshake;
    ``later_epochs`` are those of runs since. ``boot_id`` and ``disk_sequence`` are the boot and the attachment of the
    device in which programs track it, the first empty while nobody says that they do. ``clean`` is None while the volume
    may be written untracked; its content is the marker of a clean stop. ``taints`` are why the maps may not tell all,
    each with ``reason`` and ``since``; ``audit`` and ``verify`` are what the audit and the verifications keep;
    ``compared_whole`` says that free space was copied or compared as well; ``generations`` are what its content has been
    through. ``more`` is room for entries of later versions.
    """

    volume: str
    size_bytes: int
    block_bytes: int
    source_path: str
    source: dict[str, str]
    secondary: str
    phase: SyncPhase = SyncPhase.INITIAL
    replica: str = ""
    epoch: int = 0
    sequence: int = 0
    later_epochs: list[int] = field(default_factory=list)
    boot_id: str = ""
    disk_sequence: int | None = None
    clean: dict[str, Any] | None = None
    taints: list[dict[str, str]] = field(default_factory=list)
    audit: dict[str, Any] | None = None
    verify: dict[str, Any] | None = None
    compared_whole: bool = False
    generations: Generations = NO_GENERATIONS
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        UUID(self.volume)
        _ = self.geometry

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.size_bytes, self.block_bytes)

    @property
    def uuid(self) -> UUID:
        return UUID(self.volume)


def create_state(device: Source, block_bytes: int, secondary: str, phase: SyncPhase = SyncPhase.INITIAL) -> VolumeState:
    """The state of a volume that was never replicated before; it is not written yet."""
    return VolumeState(
        volume=uuid4().hex,
        size_bytes=device.size_bytes,
        block_bytes=block_bytes,
        source_path=device.path,
        source=device.identity(),
        secondary=secondary,
        phase=phase,
    )


def save_state(state_dir: str | os.PathLike[str], state: VolumeState) -> None:
    """Write the state, durably and whole. StateError when it cannot be written."""
    replace_file(Path(state_dir) / VOLUME_FILE_NAME, encode_state(state))


def load_state(state_dir: str | os.PathLike[str]) -> VolumeState | None:
    """The state in a directory; None when it holds none. StateError when the file is torn or foreign."""
    path = Path(state_dir) / VOLUME_FILE_NAME
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return decode_state(data)
    except (ValueError, TypeError, KeyError) as error:
        raise StateError(
            f"{path} is not a whole volume state ({error}): restore it, or begin anew with an empty state directory"
        ) from error


def encode_state(state: VolumeState) -> bytes:
    """The bytes of ``volume.json``."""
    content = {"format": _FORMAT, "version": _VERSION, **asdict(state), "generations": state.generations.to_values()}
    text = json.dumps(content, indent=2, ensure_ascii=True).encode() + b"\n"
    return text + _CHECKSUM + xxhash.xxh3_128_hexdigest(text).encode() + b"\n"


def decode_state(data: bytes) -> VolumeState:
    """The state in the bytes of ``volume.json``; ValueError, TypeError or KeyError say what is wrong."""
    text, mark, digest = data.rpartition(_CHECKSUM)
    if not mark or digest.strip() != xxhash.xxh3_128_hexdigest(text).encode():
        raise ValueError("its checksum is missing or wrong")
    content = json.loads(text)
    if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
        raise ValueError("it is a file of another kind")
    if (version := content.pop("version", None)) != _VERSION:
        raise ValueError(f"its version is {version}, and this program knows version {_VERSION}")
    known = {entry.name for entry in fields(VolumeState)}
    if unknown := sorted(set(content) - known):
        raise ValueError(f"it has unknown entries: {', '.join(unknown)}")
    content["phase"] = SyncPhase(content["phase"])
    if "generations" in content:
        content["generations"] = Generations.from_values(content["generations"])
    return VolumeState(**content)


def require_same_source(
    state: VolumeState, device: Source, state_dir: str | os.PathLike[str], block_bytes: int | None = None
) -> VolumeState:
    """The state again, with the device's present path, when it was kept for this device.

    ``block_bytes`` is what the operator asks for, None when nothing was asked. UsageError says which of the
    identifiers differs; one that either side lacks is no difference.
    """
    anew = "name the SOURCE it belongs to, or begin anew with an empty directory"
    if state.size_bytes != device.size_bytes:
        raise UsageError(
            f"the state directory {state_dir} was kept for a volume of {state.size_bytes} bytes, and {device.path} "
            f"has {device.size_bytes}: {anew}"
        )
    now = device.identity()
    for kind in sorted(state.source.keys() & now.keys()):
        if state.source[kind] != now[kind]:
            raise UsageError(
                f"the state directory {state_dir} was kept for a SOURCE with {kind} {state.source[kind]}, and "
                f"{device.path} has {now[kind]}: {anew}"
            )
    if block_bytes is not None and block_bytes != state.block_bytes:
        raise UsageError(
            f"the volume in {state_dir} is tracked in blocks of {state.block_bytes} bytes, not {block_bytes}: "
            "leave --block-size out, or begin anew with an empty state directory"
        )
    return replace(state, source_path=device.path)
