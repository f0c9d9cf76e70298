"""Replace running programs by others without a gap: by another version's, or by programs with other rings.

The new programs are attached first, beside the old ones. After a grace period every later write is in the new bitmaps, and
every earlier write is in the old ones. The old bitmaps are recorded, and only then the old programs are removed. If the
controller dies on the way, either the old programs are complete, or the new ones under their temporary name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pydbt.core.errors import StateError
from pydbt.kernel import pins, syscalls
from pydbt.kernel.bitmaps import Bitmaps
from pydbt.kernel.capture import Capture, CaptureOptions, VolumeSpec

_TEMPORARY_SUFFIX = "-next"


def tracked_volume(pin_dir: Path) -> VolumeSpec | None:
    """The volume that the pinned programs of any version track; None when no complete set is pinned there."""
    raw = pins.read_raw_meta(pin_dir)
    return None if raw is None else pins.decode_any(raw)[0]


def tracked_words(pin_dir: Path) -> np.ndarray | None:
    """The union of both bitmaps, one bit per block, of programs of any version; None when no complete set is pinned there.

    StateError when they cannot be read.
    """
    raw = pins.read_raw_meta(pin_dir)
    if raw is None:
        return None
    _, layout = pins.decode_any(raw)
    try:
        fd = syscalls.obj_get(pin_dir / "bits")
    except FileNotFoundError as error:
        raise StateError(f"{pin_dir} is incomplete ({error}): detach the capture programs") from None
    bitmaps = Bitmaps(fd, layout)
    try:
        words: np.ndarray = bitmaps.words(0) | bitmaps.words(1)
        return words
    finally:
        bitmaps.close()
        os.close(fd)


def replace(volume: VolumeSpec, options: CaptureOptions, pin_dir: Path, keep: Callable[[np.ndarray], None]) -> Capture:
    """Attach programs for the volume in place of the pinned ones. ``keep`` must make the old bitmaps durable.

    After any error, also one of ``keep``, the old programs stay and the new ones are gone.
    """
    temporary = _temporary(pin_dir)
    pins.remove_pins(temporary)
    capture = Capture.attach(volume, options, temporary)
    try:
        syscalls.wait_for_programs()
        words = tracked_words(pin_dir)
        if words is not None:
            keep(words)
    except BaseException:
        capture.detach()
        raise
    pins.remove_pins(pin_dir)
    os.rename(temporary, pin_dir)
    capture.pin_dir = pin_dir
    return capture


def finish_replacement(pin_dir: Path) -> None:
    """Complete or undo a replacement that was interrupted. Call it before anything is read from ``pin_dir``."""
    temporary = _temporary(pin_dir)
    if not temporary.exists():
        return
    if pins.read_raw_meta(pin_dir) is None and pins.read_raw_meta(temporary) is not None:
        pins.remove_pins(pin_dir)  # its bits were recorded before its removal began
        os.rename(temporary, pin_dir)
    else:
        with contextlib.suppress(FileNotFoundError):
            pins.remove_pins(
                temporary
            )  # the old programs are complete: they have seen every write that the new ones have seen


def _temporary(pin_dir: Path) -> Path:
    return pin_dir.with_name(pin_dir.name + _TEMPORARY_SUFFIX)
