"""The status of a volume that no controller serves: the last one that was saved, with the figures of now.

What was written since is in the kernel's bitmaps, as long as the programs are there, and nowhere else. Where nobody can tell,
the figures are None: unknown, and never better than that. Monitoring asks for it: what only some volumes need is imported there,
and for a replica no maps and no large library.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydbt.controller.changed_role import changed_role
from pydbt.controller.primary.armed import arming_of
from pydbt.core.errors import PydbtError, StateError
from pydbt.core.protocol.divergence import short
from pydbt.core.secondary.replica import own_part
from pydbt.device.sysfs import BlockDevice
from pydbt.posix.boot import boot_id
from pydbt.store.cluster_words import cluster_part
from pydbt.store.gate_file import GATE_FILE_NAME
from pydbt.store.open_handover_file import load_open_handover
from pydbt.store.replica_state import load_record
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from pydbt.store.target_problem import load_target_problem
from pydbt.store.volume_state import VolumeState, load_state

if TYPE_CHECKING:
    from pydbt.core.blocks.dirty_map import DirtyMap

_FIGURES = ("out_of_sync_bytes", "lag_bytes")


@dataclass(frozen=True, slots=True)
class WrittenSince:
    """What was written since the maps on disk. ``words`` None: nothing; ``tracked``: programs are attached."""

    tracked: bool
    words: Any = None


def with_present_figures(state_dir: Path, saved: dict[str, Any]) -> dict[str, Any]:
    """The status that was saved, with what is out of sync now, and what has become of the volume."""
    status = {**saved, **cluster_part(state_dir), "secondaries": [dict(one) for one in saved.get("secondaries", [])]}
    if saved.get("role") != "primary":
        return _of_a_replica(status, state_dir) if saved.get("role") == "secondary" else status
    state = _state_of(state_dir)
    if state is None or changed_role(state_dir, "primary"):
        return {**_became(status, state_dir), "gate": None}
    since = _since_the_maps(state)
    maps = {record.address: _out_of_sync(state_dir, state, record.slot, since) for record in state.secondaries}
    for one in status["secondaries"]:
        _set(one, _size(maps.get(str(one.get("secondary"))), state))
    known = [blocks for blocks in maps.values() if blocks is not None]
    if known and len(known) == len(maps):
        _set(status, max(_size(blocks, state) or 0 for blocks in known))
        status["out_of_sync_bytes"] = _size(_union(known, state), state)
    else:
        _set(status, None)
    _tell_records(status, state)
    return {**status, "tracked": since is not None and since.tracked, **_armed(state, since), **_gate(state_dir)}


def _tell_records(status: dict[str, Any], state: VolumeState) -> None:
    """What is written down of the secondaries is newer than the status, when the controller was killed."""
    records = {record.address: record for record in state.secondaries}
    for one in status["secondaries"]:
        if (record := records.get(str(one.get("secondary")))) is not None:
            _tell_record(one, [record])
    _tell_record(status, state.secondaries)


def _tell_record(one: dict[str, Any], records: Sequence[SecondaryRecord]) -> None:
    """A replica is inconsistent that was never in sync, or that lacks a write by a taint of which its last state knew nothing."""
    taints = list(dict.fromkeys(entry["reason"] for record in records for entry in record.taints))
    unknown = set(taints).difference(one.get("taints") or ())
    if unknown or any(record.phase is SyncPhase.INITIAL for record in records):
        one["replica_state"] = "inconsistent"
    one |= {"tainted": bool(taints), "taints": taints}


def _gate(state_dir: Path) -> dict[str, Any]:
    """What the gate found in this boot; that of a boot before may be in the status that was saved."""
    if not (state_dir / GATE_FILE_NAME).exists():
        return {"gate": None}
    from pydbt.controller.primary.gate import gate_report

    report = gate_report(state_dir)
    return {"gate": None if report is None else asdict(report)}


def _armed(state: VolumeState, since: WrittenSince | None) -> dict[str, Any]:
    """The keys of a volume that is armed: its programs are there, and no run has taken over from them."""
    arming = arming_of(state)
    if arming is None:
        return {"armed": None}
    is_armed = since is not None and since.tracked
    broken = arming.broken if is_armed else gap_of(state) or "the programs cannot be read"
    keys: dict[str, Any] = {"armed": {"since": arming.since, "broken": broken}}
    return {**keys, "mode": "armed"} if is_armed else keys


def status_of_armed(state_dir: Path) -> dict[str, Any] | None:
    """The least that a status has, for a volume that is armed and of which no status was saved; None for any other."""
    state = _state_of(state_dir)
    if state is None or arming_of(state) is None:
        return None
    secondaries = [{"secondary": record.address} for record in state.secondaries]
    return {"role": "primary", "mode": "stopped", "source": state.source_path, "secondaries": secondaries}


def _set(status: dict[str, Any], size_bytes: int | None) -> None:
    nothing_sent = (
        None if size_bytes is None else 0
    )  # nothing is on its way: all of it is copied when a controller runs again
    status.update(dict.fromkeys(_FIGURES, size_bytes), lag_seconds=None, unacknowledged_bytes=nothing_sent)


def _size(blocks: DirtyMap | None, state: VolumeState) -> int | None:
    return None if blocks is None else min(blocks.count() * state.block_bytes, state.size_bytes)


def _union(maps: list[DirtyMap], state: VolumeState) -> DirtyMap:
    """Blocks that some secondary lacks, as a controller counts them while it runs."""
    from pydbt.core.blocks.dirty_map import DirtyMap

    union = DirtyMap(state.geometry.block_count)
    for blocks in maps:
        union.merge(blocks)
    return union


def _state_of(state_dir: Path) -> VolumeState | None:
    try:
        return load_state(state_dir)
    except StateError:
        return None


def _became(status: dict[str, Any], state_dir: Path) -> dict[str, Any]:
    """A volume that is no primary any more, or of which nothing else is known. Nobody refuses one that is none."""
    every = (status, *status["secondaries"])
    for one in every:
        _set(one, None)
        one |= {"tainted": None} if one.get("tainted") is False else {}
    if became := changed_role(state_dir, "primary"):
        status |= {"mode": became, "tainted": None, "taints": [], **undecided_part(state_dir)}
        for one in every:
            one |= {name: "" for name in ("refused", "connection_problem") if name in one}
            one |= {"replica_state": None} if "replica_state" in one else {}  # this side has no replica any more
    return status


def _of_a_replica(status: dict[str, Any], state_dir: Path) -> dict[str, Any]:
    """It may have been killed before a status told that its target lacks something; or have become a volume since."""
    if became := changed_role(state_dir, "secondary"):
        return {**status, "mode": became, "replica_state": None, **undecided_part(state_dir)}
    status |= undecided_part(state_dir)
    with contextlib.suppress(StateError):
        record = load_record(state_dir)
        if (record is not None and (record.kept_aside or not record.consistent)) or load_target_problem(state_dir):
            status["replica_state"] = "inconsistent"
    return status


def undecided_part(state_dir: Path) -> dict[str, Any]:
    """The keys ``handover`` and ``divergence`` of a side that is a replica, or was one."""
    handover, own = load_open_handover(state_dir), None
    with contextlib.suppress(StateError):
        record = load_record(state_dir)
        own = None if record is None else own_part(record)
    return {"handover": handover and handover.to_report(), "divergence": own and own.to_report()}


def role_now(state_dir: Path, became: str) -> str:
    """What a command, or a change of places, has made of a side since its last status was saved."""
    with contextlib.suppress(StateError):
        record = load_record(state_dir)
        if record is not None and record.promoted:
            return f"it was {became} at {short(record.promoted)}"
    return f"it was {became}"


def _since_the_maps(state: VolumeState) -> WrittenSince | None:
    """None: nobody knows."""
    if state.boot_id != boot_id() or not _is_same_attachment(state):
        return _untouched_since(state)
    # Only now: no other status needs the eBPF side.
    from pydbt.controller.primary.leftover import pin_dir_of, tracks_another
    from pydbt.kernel.replace import tracked_words

    try:
        if tracks_another(state):
            return _untouched_since(state)
        if _missed(state):
            return None
        words = tracked_words(pin_dir_of(state))
    except (PydbtError, OSError):
        return None
    return WrittenSince(tracked=True, words=words) if words is not None else _untouched_since(state)


def _missed(state: VolumeState) -> str:
    """What the programs have not seen, as far as that can be told; for a volume that is armed also the rest of its chain."""
    if arming_of(state) is not None:
        return gap_of(state)
    from pydbt.controller.primary.programs import missed_by_programs

    try:
        return ", ".join(missed_by_programs(BlockDevice.identify(state.source_path), state))
    except (PydbtError, OSError) as error:
        return str(error)


def gap_of(state: VolumeState) -> str:
    """Why the programs may not have seen every write; empty when they have."""
    from pydbt.controller.primary.programs import gap_in_tracking

    try:
        return gap_in_tracking(BlockDevice.identify(state.source_path), state)
    except (PydbtError, OSError) as error:
        return str(error)


def _is_same_attachment(state: VolumeState) -> bool:
    """Whether the device has been there all the time, and nothing changed below it: it may have other content otherwise."""
    try:
        device = BlockDevice.identify(state.source_path)
        if device.disk_sequence() != state.disk_sequence:
            return False
        from pydbt.controller.primary.below_watch import changed_since

        return not changed_since(state, device)
    except PydbtError:
        return False


def _untouched_since(state: VolumeState) -> WrittenSince | None:
    from pydbt.device.clean import is_untouched

    try:
        device = BlockDevice.identify(state.source_path)
        return WrittenSince(tracked=False) if is_untouched(state.clean, device) else None
    except (PydbtError, OSError):
        return None


def _out_of_sync(state_dir: Path, state: VolumeState, slot: int, since: WrittenSince | None) -> DirtyMap | None:
    """Blocks that may differ from one secondary; None when that is unknown."""
    if since is None:
        return None
    record = state.record(slot)
    if record.taints:  # what they stand for is on no map
        return None
    from pydbt.store.map_file import load_map

    try:
        kept = load_map(state_dir / record.map_name)
    except StateError:
        return None
    if kept is None or kept[0].geometry != state.geometry:
        return None
    dirty: DirtyMap = kept[1]
    if since.words is not None:
        dirty.merge_words(since.words)
    if record.unfinished:
        from pydbt.controller.primary.configuring import load_staged

        if (staged := load_staged(state_dir, state, record)) is not None:
            dirty.merge(staged)
    return dirty
