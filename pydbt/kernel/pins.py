"""The pinned objects of a captured volume: one directory of bpffs per volume.

``meta`` is an array map whose only value is JSON. It is pinned last and removed first: a directory without it holds the
remains of an attach or detach that did not finish. To remove the links' pins detaches the programs.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pydbt.core.errors import MachineError, StateError
from pydbt.kernel import syscalls
from pydbt.kernel.record import GROUP_WORDS
from pydbt.kernel.spec import CaptureOptions, VolumeSpec
from pydbt.posix import libc
from pydbt.posix.ownership import OPEN_OWN, REMOVE_IT, Unsafe, folder_intruder, is_planted, make_folder

BPFFS = Path("/sys/fs/bpf")
BPFFS_MAGIC = 0xCAFE4A11
MOUNT_IT = f"mount -t bpf -o mode=0700 bpf {BPFFS}"
"""Without the mode everybody could make folders there (kernel/bpf/inode.c: bpf_fill_super)."""

#: Changes whenever the programs, the records or the maps do: pins of another version are replaced, not reopened.
PROGRAM_VERSION = 8
#: These entries of meta are the same in every version, so that each can read what another version tracked.
VOLUME_FIELDS = ("disk_major", "disk_minor", "start_sector", "size_sectors", "block_bytes", "bio_based")
LAYOUT_FIELDS = ("level1_words", "coarse_words", "map_words", "group_words")

META_BYTES = 4096

#: Programs by name, with their tracepoints. Completions come first: when the submission of a write is seen, its completion
#: must be seen as well.
PROGRAMS = {
    "request_complete": "block_rq_complete",
    "bio_complete": "block_bio_complete",
    "submit": "block_bio_queue",
}
#: Only where programs can be preempted (bpf/preempted.bpf.h): beside ``submit``, and in the order of its text.
BESIDE_SUBMIT = ("mark", "understudy", "witness")
MAPS = ("config", "bits", "headers", "state", "bell")
DATA_MAP = "data"


def programs(marks_apart: bool) -> dict[str, str]:
    """All programs of a volume, with their tracepoints, in the order in which they are attached."""
    if not marks_apart:
        return PROGRAMS
    mark, *behind = BESIDE_SUBMIT
    completions = {name: tracepoint for name, tracepoint in PROGRAMS.items() if name != "submit"}
    return completions | dict.fromkeys((mark, "submit", *behind), PROGRAMS["submit"])


class OtherVersion(StateError):
    """The pinned programs are complete, and belong to another version of pydbt."""


@dataclass(frozen=True, slots=True)
class MapLayout:
    """The places of the two bitmaps in a ``bits`` map, in 64-bit words. Every version can read that of every other version.

    Bitmap n begins at word n * ``map_words``. It has ``level1_words`` with one bit per block, then ``coarse_words`` with one
    bit per ``group_words`` words of the first level; a bit that is set here replaces those words by ones.
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
    """The facts that a later controller needs about pinned programs."""

    version: int
    volume: VolumeSpec
    options: CaptureOptions
    payload_available: bool
    payload_reason: str  # the reason why payload is not available
    data_base: int  # kernel address of the data ring's first byte
    boot_id: str
    marks_apart: bool  # with ``BESIDE_SUBMIT``
    memory_watched: bool  # whether a change of a program's memory during its direct write is noticed
    shows_short_writes: bool  # false on a loop device of which it is not seen what its file took

    @property
    def programs(self) -> dict[str, str]:
        """The programs that are pinned, with their tracepoints, in the order in which they were attached."""
        return programs(self.marks_apart)

    def encode(self) -> bytes:
        text = json.dumps(asdict(self) | {"layout": asdict(MapLayout.of(self.volume))}).encode()
        assert len(text) <= META_BYTES
        return text.ljust(META_BYTES, b"\0")

    @classmethod
    def decode(cls, raw: bytes) -> Meta:
        """StateError unless ``encode`` of this version wrote it; OtherVersion when another version did."""
        try:
            fields = json.loads(raw.rstrip(b"\0"))
            if fields["version"] != PROGRAM_VERSION:
                raise OtherVersion(
                    f"the pinned capture programs have version {fields['version']}, those of this pydbt {PROGRAM_VERSION}: "
                    "the next 'controller run' replaces them"
                )
            del fields["layout"]
            fields["volume"] = VolumeSpec(**fields["volume"])
            fields["options"] = CaptureOptions(**fields["options"])
            return cls(**fields)
        except (ValueError, TypeError, KeyError) as error:
            raise StateError(f"the pinned capture programs cannot be understood ({error}): detach them") from None


def decode_any(raw: bytes) -> tuple[VolumeSpec, MapLayout]:
    """The tracked volume and the layout of its bits, from the meta of any version. StateError when they are not in it."""
    try:
        fields = json.loads(raw.rstrip(b"\0"))
        volume = {name: fields["volume"][name] for name in VOLUME_FIELDS}
        layout = {entry: fields["layout"][entry] for entry in LAYOUT_FIELDS}
        return VolumeSpec(**volume), MapLayout(**layout)
    except (ValueError, TypeError, KeyError) as error:
        raise StateError(f"the pinned capture programs cannot be understood ({error}): detach them") from None


def require_bpffs(pin_dir: Path) -> None:
    """MachineError, with the command to run, unless ``pin_dir`` is in bpffs or will be."""
    # Where everybody may make folders and links in bpffs (mode 1777), one that another user has made before is not used.
    wrong = folder_intruder(pin_dir, REMOVE_IT)
    if wrong and not _is_empty_and_planted(pin_dir.parent):
        raise _unsafe(pin_dir, wrong)
    existing = next(folder for folder in (pin_dir, *pin_dir.parents) if folder.exists())
    if libc.file_system_magic(existing) != BPFFS_MAGIC:
        raise MachineError(f"{pin_dir} is not in a BPF file system, which keeps the capture programs: run `{MOUNT_IT}`")


def make_pin_dir(pin_dir: Path) -> None:
    """Make the directory for the pins of a volume. MachineError when another user was quicker; OSError.

    An empty folder of another user in the place of the one for all volumes is taken away.
    """
    if is_planted(pin_dir.parent):
        with contextlib.suppress(OSError):
            os.rmdir(pin_dir.parent)
    try:
        make_folder(pin_dir, remedy=REMOVE_IT)
    except Unsafe as error:
        raise _unsafe(pin_dir, str(error)) from None


def _is_empty_and_planted(folder: Path) -> bool:
    try:
        return is_planted(folder) and not folder.is_symlink() and not os.listdir(folder)
    except OSError:
        return False


def _unsafe(pin_dir: Path, wrong: str) -> MachineError:
    return MachineError(f"{pin_dir}, where the capture programs are kept, is not safe from other users: {wrong}")


def write_meta(pin_dir: Path, meta: Meta) -> None:
    fd = syscalls.map_create(syscalls.MAP_TYPE_ARRAY, 4, META_BYTES, 1, "pydbt_meta")
    try:
        syscalls.map_update(fd, 0, meta.encode())
        syscalls.obj_pin(fd, pin_dir / "meta")
    finally:
        os.close(fd)


def read_meta(pin_dir: Path) -> Meta | None:
    """The facts about the pinned programs; None when no complete set is pinned there."""
    raw = read_raw_meta(pin_dir)
    return None if raw is None else Meta.decode(raw)


def read_raw_meta(pin_dir: Path) -> bytes | None:
    """The bytes of ``meta`` of any version; None when no complete set is pinned there."""
    try:
        with _opened(pin_dir):
            fd = syscalls.obj_get(pin_dir / "meta")
    except FileNotFoundError:
        return None
    try:
        return syscalls.map_lookup(fd, 0, META_BYTES)
    finally:
        os.close(fd)


def remove_pins(pin_dir: Path) -> None:
    """Detach the programs and remove every pin. An absent directory is no error; MachineError when it is not safe.

    The meta is removed first: if this process dies here, no other one takes the directory for running programs. Then come
    the links, then the rest.
    """
    with contextlib.suppress(FileNotFoundError):
        with _opened(pin_dir) as folder:
            for name in sorted(os.listdir(folder), key=lambda name: (name != "meta", not name.startswith("link_"))):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
        os.rmdir(pin_dir)


@contextlib.contextmanager
def _opened(pin_dir: Path) -> Iterator[int]:
    """The directory, open: no link, and not one that another user made or could exchange (MachineError). FileNotFoundError."""
    try:
        folder = os.open(pin_dir, os.O_RDONLY | os.O_DIRECTORY | OPEN_OWN)
    except NotADirectoryError:  # the kernel's answer for a link as well
        raise _unsafe(pin_dir, f"it is a link, or no directory: {REMOVE_IT}") from None
    try:
        if wrong := folder_intruder(pin_dir, REMOVE_IT):
            raise _unsafe(pin_dir, wrong)
        # Only a look at the way that came after the opening tells something about what is open.
        if not os.path.samestat(os.stat(pin_dir, follow_symlinks=False), os.fstat(folder)):
            raise _unsafe(pin_dir, "it was exchanged just now: start again")
        yield folder
    finally:
        os.close(folder)
