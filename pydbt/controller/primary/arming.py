"""``controller arm``: programs that set bits, and nothing else, with no controller and no secondary (patent, paragraph 100).

The volume is judged here, before it is mounted: once it is armed and mounted, its file system is not that of the closing record
any more. The verdict is kept with the name of the programs' attachment (``armed.Arming``), and the next run trusts it as long
as these programs have stayed. Killed at any moment this leaves the closing record with the volume not armed (programs that are
left are taken away by the next start), or the volume armed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydbt.controller.boot_chain import keep_names, why_unarmed
from pydbt.controller.control import is_answering
from pydbt.controller.primary.armed import Arming, with_arming
from pydbt.controller.primary.auditor import look_at
from pydbt.controller.primary.below_watch import KEY as BELOW_KEY
from pydbt.controller.primary.below_watch import BelowWatch
from pydbt.controller.primary.kept_marks import MARKS_KEY, carried_over
from pydbt.controller.primary.leftover import let_go, pin_dir_of, warn_of_others
from pydbt.controller.primary.opening import all_distrusted, before_attaching, distrust_maps, load_maps
from pydbt.controller.primary.programs import chain_of, still_tracked, volume_spec
from pydbt.controller.registry import registered_primary
from pydbt.controller.roles import require_no_replica
from pydbt.core.tracking.audit import Look, first_record
from pydbt.device.block import DirectReader
from pydbt.device.checks import check_source
from pydbt.device.sysfs import BlockDevice
from pydbt.kernel.capture import Capture, CaptureOptions, require_ready
from pydbt.kernel.spec import PAGE_BYTES
from pydbt.posix.boot import boot_id
from pydbt.store.volume_state import VolumeState, load_state, require_same_source, save_state

# Nobody reads records of an armed volume: only its bits are set.
OPTIONS = CaptureOptions(header_ring_bytes=PAGE_BYTES, data_ring_bytes=0, payload=False)
_IDLE_LOOKS = (
    50  # at a device that nothing is mounted on: writes of an earlier use end within the half second that they take
)
_BETWEEN_LOOKS_S = 0.01


@dataclass(frozen=True, slots=True)
class Armed:
    """``nothing_to_do``: why the volume was left as it is; else it is armed. ``broken``: the link that was missing."""

    nothing_to_do: str = ""
    broken: str = ""


def arm_volume(source: Path, state_dir: Path, volume_file: Path | None = None) -> Armed:
    """Attach address-only programs to a volume that has been replicated before. PydbtError with everything undone.

    ``volume_file``: the file that configures it, None when none does.
    """
    device = check_source(source, state_dir)
    keep_names(volume_file, source, device)
    require_no_replica(state_dir)
    state = load_state(state_dir)
    if state is None or not state.secondaries:
        return Armed("it was never replicated: the first run copies the blocks in use")
    state = require_same_source(state, device, state_dir)
    if is_answering(state_dir):
        return Armed("a controller replicates it, and tracks every write")
    with registered_primary(device, state_dir), DirectReader(device) as reader:
        if state.boot_id == boot_id():
            let_go(state, device)
        load_maps(state_dir, state)  # before anything is attached: a map that cannot be read ends here
        if still_tracked(device, state):
            return Armed("its programs are in the kernel, and track every write")
        this_boot = state.boot_id == boot_id()
        return Armed(broken=_attach(
            device, state, state_dir, reader,
            lambda: "" if this_boot else why_unarmed(volume_file, source, device, state_dir),
        ))  # fmt: skip


def _attach(
    device: BlockDevice, state: VolumeState, state_dir: Path, reader: DirectReader, unarmed: Callable[[], str]
) -> str:
    """The link that was missing, or nothing. ``unarmed``: why a mount of this boot may have come before."""
    below, marks = BelowWatch(device, state), carried_over(state, boot_id()).get(MARKS_KEY)
    link = chain_of(device, state, reader, unarmed).link
    state = before_attaching(state_dir, state, below.untracked(link) if link else "")
    pins = pin_dir_of(state)
    require_ready(pins)
    warn_of_others(pins, device)
    Capture.remove_pins(pins)
    capture = Capture.attach(volume_spec(device, state.block_bytes), OPTIONS, pins)
    try:
        capture.set_records(False)
        look = _idle_look(device, capture)
        # What was written while the programs were compiled is seen by the second look alone.
        link = link or chain_of(device, state, reader, unarmed).link
        if link:
            distrust_maps(state_dir, state)
            state = all_distrusted(state, below.untracked(link))
        more = {**state.more, BELOW_KEY: below.kept and below.kept.to_values()}
        if marks is not None:
            more[MARKS_KEY] = marks
        audit = first_record(look).as_dict()  # a write that is counted unseen from here on is told, whoever looks
        state = replace(
            state, clean=None, boot_id=boot_id(), disk_sequence=device.disk_sequence(), audit=audit, more=more
        )
        since = datetime.now(UTC).isoformat(timespec="seconds")
        save_state(state_dir, with_arming(state, Arming(since, capture.attach_name(), link)))
    except BaseException:
        capture.detach()
        raise
    capture.close()
    return link


def _idle_look(device: BlockDevice, capture: Capture) -> Look:
    """Of the counts while nothing is in flight, if the device comes to rest at all; it does before its mount."""
    look = look_at(device, capture)
    for _ in range(_IDLE_LOOKS):
        if look.idle:
            break
        time.sleep(_BETWEEN_LOOKS_S)
        look = look_at(device, capture)
    return look
