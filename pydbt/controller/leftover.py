"""Taking away what a dead controller left in the kernel, without losing what it had tracked."""

from __future__ import annotations

import os
from pathlib import Path

from pydbt.core.dirty_map import DirtyMap
from pydbt.store.map_file import MAP_FILE_NAME, MapHeader, load_map, save_map
from pydbt.store.volume_state import VolumeState, load_state

PINS = Path("/sys/fs/bpf/pydbt")


def pin_dir_of(state: VolumeState) -> Path:
    """Where the programs of a volume are pinned."""
    return PINS / state.uuid.hex


def detach_leftover(state_dir: str | os.PathLike[str]) -> bool:
    """Detach a volume's pinned programs after their bitmaps are safe in the map file; False when there are none.

    Call it only when no controller serves the state directory. Everything the kernel tracked is in the map
    before anything is detached, so that a failure on the way loses nothing and can be repeated.
    """
    state = load_state(state_dir)
    if state is None:
        return False
    pin_dir = pin_dir_of(state)
    if not pin_dir.exists():
        return False
    from pydbt.kernel.capture import Capture

    capture = Capture.reopen(pin_dir)
    if capture is None:
        return False
    map_path = Path(state_dir) / MAP_FILE_NAME
    kept = load_map(map_path)
    header, dirty = kept or (MapHeader(state.uuid, state.geometry), DirtyMap(state.geometry.block_count))
    # Both bitmaps: the quiet one, and after the flip the one that was active.
    dirty.merge_words(capture.quiet_words())
    capture.flip()
    dirty.merge_words(capture.quiet_words())
    save_map(map_path, header, dirty)
    capture.detach()
    return True
