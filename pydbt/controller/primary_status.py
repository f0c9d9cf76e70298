"""The primary's report: one dictionary, of which the command line and every dashboard show parts."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydbt.core.modes import FOLLOWING_MODES, Mode

if TYPE_CHECKING:
    from pydbt.controller.primary_loop import PrimaryLoop

# A replica further behind than this is in order, but nobody should call it up to date.
UP_TO_DATE_LAG_S = 10.0


def primary_status(loop: PrimaryLoop) -> dict[str, Any]:
    """Sizes in bytes, times in seconds or RFC 3339; never more favourable than the truth."""
    brain, now = loop.brain, time.monotonic()
    counters = loop.capture.counters()
    normal = brain.mode is Mode.NORMAL
    out_of_sync = _out_of_sync_bytes(loop, normal)
    lag_seconds = _lag_seconds(loop, now, out_of_sync)
    done, total, eta = brain.resync.progress(now)
    log = brain.tracker.log
    return {
        "role": "primary",
        "source": loop.device.path,
        "secondary": loop.state.secondary,
        "volume": loop.state.volume,
        "size_bytes": loop.state.size_bytes,
        "block_bytes": loop.state.block_bytes,
        "generations": loop.state.generations.to_values(),
        "connected": brain.link.up,
        "connection_problem": brain.link.reason,
        "mode": str(brain.mode),
        "phase": str(brain.phase),
        "waiting_for": brain.resync.waiting_for(),
        "replica_state": _replica_state(loop, normal, lag_seconds, out_of_sync),
        "tainted": bool(brain.taints),
        "taints": list(brain.taints),
        **loop.assurance.report(),
        "assumed_in_sync": loop.state.phase == "assumed" or loop.config.assumed_in_sync,
        "sequence": {"submitted": brain.sequence, "acknowledged": _acknowledged(loop, normal)},
        "out_of_sync_bytes": out_of_sync,
        "in_flight": {
            "known": brain.in_flight.certain,
            "bytes": brain.in_flight.extents().total() * loop.state.block_bytes,
        },
        "unsettled_bytes": len(brain.settler) * loop.state.block_bytes,
        "lag_bytes": brain.queue.unacknowledged_bytes if normal else out_of_sync,
        "lag_seconds": round(lag_seconds, 3) if lag_seconds is not None else None,
        "last_in_sync": _last_in_sync(loop, lag_seconds),
        "sent_bytes": loop.peer.sent_bytes,
        "written_bytes": brain.statistics.written_bytes,
        "log": {
            "size": log.capacity_bytes,
            "used": log.used_bytes,
            "start": log.start,
            "end": log.end,
            "active_transactions": log.active_transactions,
        },
        "queue": {"size": loop.capture.data_size_bytes(), "used": loop.capture.data_used_bytes()},
        "lost_records": counters.lost_records + counters.lost_completions,
        "progress": {"done_bytes": done, "total_bytes": total, "eta_seconds": None if eta is None else round(eta, 1)},
        **({"epochs": _epochs(loop, now)} if brain.epochs.on else {}),
        "persist_problem": brain.persist_error,
        "statistics": brain.statistics.as_dict(now),
    }


def _acknowledged(loop: PrimaryLoop, normal: bool) -> int:
    """Of this run's sequence numbers; what a landing has not committed yet does not count."""
    normal = normal or loop.brain.epochs.on
    epoch, sequence = loop.brain.replica_position
    return loop.brain.acknowledged if normal else sequence if epoch == loop.config.epoch else 0


def _out_of_sync_bytes(loop: PrimaryLoop, normal: bool) -> int:
    """Outside of normal mode the kernel's bitmaps name further blocks; they may overlap with ours (an upper bound)."""
    known = loop.brain.out_of_sync_bytes()
    if normal:
        return known
    active, quiet = loop.capture.dirty_counts()
    held = quiet if loop.brain.quiet_held else 0
    return min(known + (active + held) * loop.state.block_bytes, loop.state.size_bytes)


def _epochs(loop: PrimaryLoop, now: float) -> dict[str, Any]:
    epochs = loop.brain.epochs
    last = None if epochs.instant is None else _moment(now - epochs.instant)
    return {
        "interval_s": loop.config.epoch_interval_s,
        "kind": epochs.kind,
        "number": epochs.number,
        "last": last,
        "frozen_ms_last": round(epochs.held_ms_last, 1),
        "frozen_ms_max": round(epochs.held_ms_max, 1),
        "problem": epochs.problem,
    }


def _lag_seconds(loop: PrimaryLoop, now: float, out_of_sync_bytes: int) -> float | None:
    since, epochs = loop.in_sync_at, loop.brain.epochs
    if epochs.on:  # the bitmaps may know of writes whose records are still to come
        since = epochs.instant if out_of_sync_bytes else epochs.in_sync_at(now)
    return now - since if since is not None else None


def _last_in_sync(loop: PrimaryLoop, lag_seconds: float | None) -> str | None:
    if lag_seconds is None:
        return loop.remembered_in_sync
    return _moment(lag_seconds)


def _moment(ago_seconds: float) -> str:
    then = datetime.now(UTC) - timedelta(seconds=ago_seconds)
    return then.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _replica_state(loop: PrimaryLoop, normal: bool, lag_seconds: float | None, out_of_sync_bytes: int) -> str:
    brain = loop.brain
    if (brain.taints and brain.mode in FOLLOWING_MODES) or (normal and brain.settler.repairing):
        return "inconsistent"
    if brain.mode is Mode.EPOCHS and brain.replica_state == "consistent":
        return "up-to-date" if not out_of_sync_bytes and not lag_seconds else "consistent"
    if not normal or brain.replica_state == "inconsistent":
        return brain.replica_state
    behind = lag_seconds is None or lag_seconds > UP_TO_DATE_LAG_S
    return "consistent" if behind else "up-to-date"
