"""What is pinned where: one directory of bpffs per captured volume.

``meta`` is an array map whose one value is JSON; it is pinned last and removed first, so that a directory without
it is the rest of an attach or a detach that did not finish. Removing the links' pins detaches the programs.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from pydbt.core.errors import MachineError, StateError
from pydbt.kernel import syscalls
from pydbt.kernel.record import GROUP_WORDS
from pydbt.kernel.spec import CaptureOptions, VolumeSpec
from pydbt.posix import libc

BPFFS = Path("/sys/fs/bpf")
BPFFS_MAGIC = 0xCAFE4A11

#: Changes whenever the programs, the records or the maps do: pins of another version are replaced, not reopened.
PROGRAM_VERSION = 2
#: These entries of meta stay as they are in every version, so that each can read what another one tracked.
VOLUME_FIELDS = ("disk_major", "disk_minor", "start_sector", "size_sectors", "block_bytes", "bio_based")
LAYOUT_FIELDS = ("level1_words", "coarse_words", "map_words", "group_words")

META_BYTES = 4096

#: Programs by name, with the tracepoint each hangs on. Completions first: a write whose submission is seen
#: must have its completion seen.
PROGRAMS = {
    "request_complete": "block_rq_complete",
    "bio_complete": "block_bio_complete",
    "submit": "block_bio_queue",
}
MAPS = ("config", "bits", "headers", "state")
DATA_MAP = "data"


class OtherVersion(StateError):
    """The pinned programs are whole, and of another version of pydbt."""


@dataclass(frozen=True, slots=True)
class MapLayout:
    """Where the two bitmaps of a ``bits`` map lie, in 64-bit words: what every version can read of every other's.

    Bitmap n begins at word n * ``map_words``; ``level1_words`` of one bit a block, then ``coarse_words`` of one bit
    for each ``group_words`` words of the first that are to be read as all ones.
    """

    level1_words: int
    coarse_words: int
    map_words: int
    group_words: int = GROUP_WORDS

    @classmethod
    def of(cls, volume: VolumeSpec) -> MapLayout:
        """The layout that this version gives a volume's bitmaps."""
        return cls(volume.level1_words, volume.coarse_words, volume.map_words)


@dataclass(frozen=True, slots=True)
class Meta:
    """What a later controller has to know of the programs it finds pinned."""

    version: int
    volume: VolumeSpec
    options: CaptureOptions
    payload_available: bool
    payload_reason: str  # why not
    data_base: int  # kernel address of the data ring's first byte
    boot_id: str

    def encode(self) -> bytes:
        text = json.dumps(asdict(self) | {"layout": asdict(MapLayout.of(self.volume))}).encode()
        assert len(text) <= META_BYTES
        return text.ljust(META_BYTES, b"\0")

    @classmethod
    def decode(cls, raw: bytes) -> Meta:
        """StateError unless it is what ``encode`` of this version wrote; OtherVersion: of another one."""
        try:
            fields = json.loads(raw.rstrip(b"\0"))
            if fields["version"] != PROGRAM_VERSION:
                raise OtherVersion(
                    f"the pinned capture programs are of version {fields['version']}, this pydbt's of {PROGRAM_VERSION}: "
                    "the next 'controller run' replaces them"
                )
            del fields["layout"]
            fields["volume"] = VolumeSpec(**fields["volume"])
            fields["options"] = CaptureOptions(**fields["options"])
            return cls(**fields)
        except (ValueError, TypeError, KeyError) as error:
            raise StateError(f"the pinned capture programs cannot be understood ({error}): detach them") from None


def decode_any(raw: bytes) -> tuple[VolumeSpec, MapLayout]:
    """What is tracked, and where its bits lie, from the meta of any version. StateError when it does not say."""
    try:
        fields = json.loads(raw.rstrip(b"\0"))
        volume = {name: fields["volume"][name] for name in VOLUME_FIELDS}
        layout = {entry: fields["layout"][entry] for entry in LAYOUT_FIELDS}
        return VolumeSpec(**volume), MapLayout(**layout)
    except (ValueError, TypeError, KeyError) as error:
        raise StateError(f"the pinned capture programs cannot be understood ({error}): detach them") from None


def require_bpffs(pin_dir: Path) -> None:
    """MachineError, with the command to run, unless ``pin_dir`` lies (or will lie) in bpffs."""
    existing = next(folder for folder in (pin_dir, *pin_dir.parents) if folder.exists())
    if libc.file_system_magic(existing) != BPFFS_MAGIC:
        raise MachineError(
            f"{pin_dir} is not in a BPF file system, which keeps the capture programs: run `mount -t bpf bpf {BPFFS}`"
        )


def write_meta(pin_dir: Path, meta: Meta) -> None:
    fd = syscalls.map_create(syscalls.MAP_TYPE_ARRAY, 4, META_BYTES, 1, "pydbt_meta")
    try:
        syscalls.map_update(fd, 0, meta.encode())
        syscalls.obj_pin(fd, pin_dir / "meta")
    finally:
        os.close(fd)


def read_meta(pin_dir: Path) -> Meta | None:
    """None when nothing complete is pinned there."""
    raw = read_raw_meta(pin_dir)
    return None if raw is None else Meta.decode(raw)


def read_raw_meta(pin_dir: Path) -> bytes | None:
    """As ``read_meta``, of any version."""
    try:
        fd = syscalls.obj_get(pin_dir / "meta")
    except FileNotFoundError:
        return None
    try:
        return syscalls.map_lookup(fd, 0, META_BYTES)
    finally:
        os.close(fd)


def remove_pins(pin_dir: Path) -> None:
    """Detach and forget. Nothing there is no error.

    The meta goes first: whoever dies in here leaves a directory that nobody takes for programs that run. Then the
    links, then the rest.
    """
    with contextlib.suppress(FileNotFoundError):
        for entry in sorted(
            pin_dir.iterdir(), key=lambda entry: (entry.name != "meta", not entry.name.startswith("link_"))
        ):
            entry.unlink(missing_ok=True)
        pin_dir.rmdir()
