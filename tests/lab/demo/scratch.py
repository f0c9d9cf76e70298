"""The folder of one demo, with everything that hangs on it, and how all of that is taken away again.

Everything is found by the folder's own name, so that a demo is removed the same way whether it just ended, was
interrupted, or was kept by an earlier process.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pydbt.controller.registry import PINS
from pydbt.core.errors import MachineError, PydbtError, UsageError
from pydbt.core.units import MIB
from pydbt.kernel import pins
from tests.lab.cable import Cable
from tests.lab.demo.controllers import PRIMARY, SECONDARY, end_leftover, log_of
from tests.lab.disks import Device, detach, loops_in, unmount
from tests.lab.entries import forget_below

# Not /tmp, which is memory on many machines.
_ROOT = Path("/var/tmp")
_PREFIX = "pydbt-demo-"
_MANIFEST = "demo.json"
# Room for the replica's journal besides both images.
_JOURNAL_ROOM_BYTES = 1280 * MIB
_PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Scratch:
    """Places of one demo."""

    folder: Path
    cable: Cable

    @property
    def image(self) -> Path:
        """The file behind SOURCE."""
        return self.folder / "source.img"

    @property
    def replica(self) -> Path:
        return self.folder / "replica.img"

    @property
    def mount_point(self) -> Path:
        return self.folder / "volume"

    @property
    def archive(self) -> Path:
        return self.folder / "files.tar"


def make(size_bytes: int) -> Scratch:
    """A new folder for a volume of that size. MachineError when the disk has no room for it."""
    _ROOT.mkdir(exist_ok=True)
    need, free = 2 * size_bytes + _JOURNAL_ROOM_BYTES, shutil.disk_usage(_ROOT).free
    if free < need:
        raise MachineError(
            f"{_ROOT} has {free // MIB} MiB free and the demo may need {need // MIB}: make room, or name a smaller --size"
        )
    cable = Cable.choose("demo")
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_ROOT))
    (folder / _MANIFEST).write_text(json.dumps(asdict(cable)) + "\n")
    return Scratch(folder, cable)


def find(folder: Path) -> Scratch:
    """A demo that was kept. UsageError when the folder is none."""
    place = folder.resolve()
    try:
        if not place.name.startswith(_PREFIX):
            raise ValueError
        return Scratch(place, Cable(**json.loads((place / _MANIFEST).read_bytes())))
    except (OSError, ValueError, TypeError):
        raise UsageError(f"{folder} is not the folder of a demo: name the one that `--keep` printed") from None


def remove(scratch: Scratch, *, keep_logs: bool = False) -> list[str]:
    """Take everything away: processes, mounts, programs in the kernel, loop devices, network, files.

    What cannot be taken away does not keep the rest: one sentence each is returned. ``keep_logs`` leaves the folder
    with both logs and nothing else.
    """
    problems: list[str] = []
    with _collected(problems):
        end_leftover(scratch.folder, PRIMARY)
    with _collected(problems):
        end_leftover(scratch.folder, SECONDARY)
    with _collected(problems):
        if os.path.ismount(scratch.mount_point):
            unmount(scratch.mount_point, _PATIENCE_S)
    loops = loops_in(scratch.folder)
    with _collected(problems):
        _unpin(loops)
    for loop in loops:
        with _collected(problems):
            detach(loop, _PATIENCE_S)
    with _collected(problems):
        scratch.cable.remove()
    with _collected(problems):
        forget_below(scratch.folder)
    if os.path.ismount(scratch.mount_point):
        return problems  # nothing below a mount is ours to delete
    with _collected(problems):
        _delete(scratch.folder, {log_of(scratch.folder, role) for role in (PRIMARY, SECONDARY)} if keep_logs else set())
    return problems


@contextlib.contextmanager
def _collected(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except (PydbtError, OSError, subprocess.SubprocessError) as error:
        problems.append(str(error))


def _unpin(loops: list[Device]) -> None:
    """Programs of a controller that did not come to an orderly end, known by the disk that they track."""
    numbers = {(os.major(device), os.minor(device)) for loop in loops for device in [os.stat(loop).st_rdev]}
    for folder in PINS.iterdir() if PINS.is_dir() else ():
        with contextlib.suppress(PydbtError, OSError):  # another volume's affair
            meta = pins.read_meta(folder)
            if meta is not None and (meta.volume.disk_major, meta.volume.disk_minor) in numbers:
                pins.remove_pins(folder)


def _delete(folder: Path, kept: set[Path]) -> None:
    for path in folder.iterdir():
        if path in kept:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    if not kept:
        folder.rmdir()
