"""What the controller before this one has told, and a new one cannot know by itself: up to when a secondary has everything."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from pydbt.controller.control import read_saved_status
from pydbt.controller.primary.volume import Volume
from pydbt.core.seen.view import View
from pydbt.store.secondary_record import SyncPhase


def recall_in_sync(volume: Volume) -> None:
    """What was true of a secondary that was in sync once stays true, also where it does not come back for days.

    One that turns out to hold less, or a write that no program saw, takes it back (``Peer.note_in_sync``).
    """
    saved = View(read_saved_status(volume.options.state_dir) or {})
    if saved.text("volume") != volume.metadata.state.volume:
        return
    told = {entry.text("secondary"): entry.text("last_in_sync") for entry in saved.parts("secondaries")}
    for peer in volume.peers.values():
        age_s = _age_s(told.get(peer.address))
        if age_s is not None and peer.record.phase is SyncPhase.REPLICATING and not peer.brain.state.taints:
            peer.in_sync_at = time.monotonic() - age_s


def _age_s(moment: str | None) -> float | None:
    """None for what is no moment, and for one that a clock has told which was ahead."""
    try:
        age_s = (datetime.now(UTC) - datetime.fromisoformat(moment or "").astimezone(UTC)).total_seconds()
    except (ValueError, OverflowError):
        return None
    return age_s if age_s >= 0 else None
