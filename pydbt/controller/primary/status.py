"""The primary's report: one dictionary, of which the command line and every dashboard show parts.

Every secondary has its own, with the same keys; what the volume says of all of them together is ``volume_words``' business.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from pydbt.controller.primary.era_checkpoints import EraCheckpoints
from pydbt.controller.primary.peer import Peer
from pydbt.controller.primary.volume import Volume
from pydbt.controller.primary.volume_words import together
from pydbt.core.primary.modes import FOLLOWING_MODES, Mode

# A replica further behind than this is in order, but nobody should call it up to date.
UP_TO_DATE_LAG_S = 10.0


def primary_status(volume: Volume, checkpoints: EraCheckpoints) -> dict[str, Any]:
    """Sizes in bytes, times in seconds or RFC 3339; never more favourable than the truth."""
    state, counters = volume.metadata.state, volume.capture.counters()
    in_kernel = _in_kernel_bytes(volume)
    secondaries = [
        peer_status(peer, in_kernel, state.size_bytes, checkpoints.report(peer, peer.since))
        for peer in volume.peers.values()
    ]
    # The brain that counted longest has counted most.
    longest = max(volume.brains, key=lambda brain: brain.statistics.written_bytes)
    normal = all(brain.mode is Mode.NORMAL for brain in volume.brains)
    return {
        "role": "primary",
        "source": volume.device.path,
        "volume": state.volume,
        "size_bytes": state.size_bytes,
        "block_bytes": state.block_bytes,
        **together(secondaries),
        "generations": (state.secondaries[0] if len(secondaries) == 1 else state).generations.to_values(),
        "audit": volume.auditor.report(),
        "out_of_sync_bytes": min(volume.fanout.out_of_sync_bytes() + (0 if normal else in_kernel), state.size_bytes),
        "in_flight": {
            "known": all(brain.in_flight.certain for brain in volume.brains),
            "bytes": max(brain.in_flight.extents().total() for brain in volume.brains) * state.block_bytes,
        },
        "written_bytes": longest.statistics.written_bytes,
        "queue": {"size": volume.capture.data_size_bytes(), "used": volume.capture.data_used_bytes()},
        "lost_records": counters.lost_records + counters.lost_completions,
        "secondaries": secondaries,
    }


def peer_status(
    peer: Peer, in_kernel_bytes: int, size_bytes: int, write_intent: dict[str, Any] | None
) -> dict[str, Any]:
    """The report on one secondary; ``in_kernel_bytes``: what the kernel's bitmaps name on top of what its brain knows."""
    brain, record, now = peer.brain, peer.record, time.monotonic()
    normal = brain.mode is Mode.NORMAL
    block_bytes = brain.geometry.block_bytes
    # Outside of normal mode the kernel's bitmaps name further blocks; they may overlap with ours (an upper bound).
    out_of_sync = min(brain.out_of_sync_bytes() + (0 if normal else in_kernel_bytes), size_bytes)
    lag_seconds = _lag_seconds(peer, now, out_of_sync)
    done, total, eta = brain.resync.progress(now)
    log = brain.tracker.log
    return {
        "secondary": record.address,
        "connected": brain.link.up,
        "connection_problem": str(peer.refusal or brain.link.reason),
        "mode": str(brain.mode),
        "phase": str(brain.phase),
        "waiting_for": brain.resync.waiting_for(),
        "replica_state": _replica_state(peer, normal, lag_seconds, out_of_sync),
        "tainted": bool(brain.taints),
        "taints": list(brain.taints),
        "verify": peer.verification.report(),
        "write_intent": write_intent,
        "assumed_in_sync": record.phase == "assumed" or brain.config.assumed_in_sync,
        "sequence": {"submitted": brain.sequence, "acknowledged": _acknowledged(peer, normal)},
        "out_of_sync_bytes": out_of_sync,
        "unsettled_bytes": len(brain.settler) * block_bytes,
        "lag_bytes": brain.queue.unacknowledged_bytes if normal else out_of_sync,
        "lag_seconds": round(lag_seconds, 3) if lag_seconds is not None else None,
        "last_in_sync": _last_in_sync(lag_seconds),
        "sent_bytes": peer.connection.sent_bytes,
        "log": {
            "size": log.capacity_bytes,
            "used": log.used_bytes,
            "start": log.start,
            "end": log.end,
            "active_transactions": log.active_transactions,
        },
        "progress": {"done_bytes": done, "total_bytes": total, "eta_seconds": None if eta is None else round(eta, 1)},
        **({"epochs": _epochs(peer, now)} if brain.epochs.on else {}),
        "persist_problem": brain.persist_error,
        "generations": record.generations.to_values(),
        "statistics": brain.statistics.as_dict(now),
    }


def _in_kernel_bytes(volume: Volume) -> int:
    active, quiet = volume.capture.dirty_counts()
    return (active + (quiet if volume.fanout.bitmaps.held else 0)) * volume.geometry.block_bytes


def _acknowledged(peer: Peer, normal: bool) -> int:
    """Of this run's sequence numbers; what a landing has not committed yet does not count."""
    normal = normal or peer.brain.epochs.on
    epoch, sequence = peer.brain.replica_position
    return peer.brain.acknowledged if normal else sequence if epoch == peer.brain.config.epoch else 0


def _epochs(peer: Peer, now: float) -> dict[str, Any]:
    epochs = peer.brain.epochs
    last = None if epochs.instant is None else _moment(now - epochs.instant)
    return {
        "interval_s": peer.brain.config.epoch_interval_s,
        "kind": epochs.kind,
        "number": epochs.number,
        "last": last,
        "frozen_ms_last": round(epochs.held_ms_last, 1),
        "frozen_ms_max": round(epochs.held_ms_max, 1),
        "problem": epochs.problem,
    }


def _lag_seconds(peer: Peer, now: float, out_of_sync_bytes: int) -> float | None:
    since, epochs = peer.in_sync_at, peer.brain.epochs
    if epochs.on:  # the bitmaps may know of writes whose records are still to come
        since = epochs.instant if out_of_sync_bytes else epochs.in_sync_at(now)
    return now - since if since is not None else None


def _last_in_sync(lag_seconds: float | None) -> str | None:
    return None if lag_seconds is None else _moment(lag_seconds)


def _moment(ago_seconds: float) -> str:
    then = datetime.now(UTC) - timedelta(seconds=ago_seconds)
    return then.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _replica_state(peer: Peer, normal: bool, lag_seconds: float | None, out_of_sync_bytes: int) -> str:
    brain = peer.brain
    if (brain.taints and brain.mode in FOLLOWING_MODES) or (normal and brain.settler.repairing):
        return "inconsistent"
    if brain.mode is Mode.EPOCHS and brain.replica_state == "consistent":
        return "up-to-date" if not out_of_sync_bytes and not lag_seconds else "consistent"
    if not normal or brain.replica_state == "inconsistent":
        return brain.replica_state
    behind = lag_seconds is None or lag_seconds > UP_TO_DATE_LAG_S
    return "consistent" if behind else "up-to-date"
