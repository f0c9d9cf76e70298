"""Makes the report of a running primary, of which the command line and every dashboard show parts."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pydbt.controller.primary.combined import combined
from pydbt.controller.primary.era_checkpoints import EraCheckpoints
from pydbt.controller.primary.peer import Peer
from pydbt.controller.primary.report import (
    EpochsReport,
    FlightReport,
    LogReport,
    ProgressReport,
    QueueReport,
    SecondaryReport,
    SequenceReport,
    VolumeReport,
    WriteIntentReport,
)
from pydbt.controller.primary.volume import Volume
from pydbt.core.primary.modes import FOLLOWING_MODES, Mode

# A replica further behind than this is in order, but it is not called up to date.
UP_TO_DATE_LAG_S = 10.0


def volume_report(volume: Volume, checkpoints: EraCheckpoints) -> VolumeReport:
    """The volume and all of its secondaries now; never more favourable than the truth."""
    state, brains, counters = volume.metadata.state, volume.brains, volume.capture.counters()
    in_kernel = _in_kernel_bytes(volume)
    secondaries = [
        _secondary_report(peer, in_kernel, state.size_bytes, checkpoints.report(peer)) for peer in volume.peers.values()
    ]
    # The brain that counted longest has counted most.
    longest = max(brains, key=lambda brain: brain.statistics.written_bytes)
    normal = all(brain.mode is Mode.NORMAL for brain in brains)
    out_of_sync = volume.fanout.out_of_sync_bytes() + (0 if normal else in_kernel)
    return VolumeReport(
        role="primary",
        source=volume.device.path,
        volume=state.volume,
        size_bytes=state.size_bytes,
        block_bytes=state.block_bytes,
        together=replace(
            combined(secondaries),
            generations=(state.secondaries[0] if len(secondaries) == 1 else state).generations,
            out_of_sync_bytes=min(out_of_sync, state.size_bytes),
        ),
        audit=volume.auditor.report(),
        in_flight=FlightReport(
            known=all(brain.in_flight.certain for brain in brains),
            bytes=max(brain.in_flight.extents().total() for brain in brains) * state.block_bytes,
        ),
        written_bytes=longest.statistics.written_bytes,
        queue=QueueReport(size=volume.capture.data_size_bytes(), used=volume.capture.data_used_bytes()),
        lost_records=counters.lost_records + counters.lost_completions,
        secondaries=tuple(secondaries),
    )


def _secondary_report(
    peer: Peer, in_kernel_bytes: int, size_bytes: int, write_intent: WriteIntentReport | None
) -> SecondaryReport:
    """``in_kernel_bytes``: blocks that the kernel's bitmaps name beyond those that the brain knows."""
    brain, record, now = peer.brain, peer.record, time.monotonic()
    normal = brain.mode is Mode.NORMAL
    # Outside of normal mode the kernel's bitmaps name further blocks; they may overlap with ours (an upper bound).
    out_of_sync = min(brain.out_of_sync_bytes() + (0 if normal else in_kernel_bytes), size_bytes)
    lag_seconds = _lag_seconds(peer, now, out_of_sync)
    return SecondaryReport(
        secondary=record.address,
        connected=brain.link.up,
        connection_problem=str(peer.refusal or brain.link.reason),
        mode=str(brain.mode),
        phase=str(brain.phase),
        waiting_for=brain.resync.waiting_for(),
        replica_state=_replica_state(peer, normal, lag_seconds, out_of_sync),
        tainted=bool(brain.taints),
        taints=tuple(brain.taints),
        verify=peer.verification.report(),
        write_intent=write_intent,
        assumed_in_sync=record.phase == "assumed" or brain.config.assumed_in_sync,
        sequence=SequenceReport(submitted=brain.sequence, acknowledged=_acknowledged(peer, normal)),
        out_of_sync_bytes=out_of_sync,
        unsettled_bytes=len(brain.settler) * brain.geometry.block_bytes,
        lag_bytes=brain.queue.unacknowledged_bytes if normal else out_of_sync,
        lag_seconds=round(lag_seconds, 3) if lag_seconds is not None else None,
        last_in_sync=_moment(lag_seconds) if lag_seconds is not None else None,
        sent_bytes=peer.connection.sent_bytes,
        log=_log(peer),
        progress=_progress(peer, now),
        epochs=_epochs(peer, now) if brain.epochs.on else None,
        persist_problem=brain.persist_error,
        generations=record.generations,
        statistics=brain.statistics.as_dict(now),
    )


def _log(peer: Peer) -> LogReport:
    log = peer.brain.tracker.log
    return LogReport(log.capacity_bytes, log.used_bytes, log.start, log.end, log.active_transactions)


def _progress(peer: Peer, now: float) -> ProgressReport:
    done, total, eta = peer.brain.resync.progress(now)
    return ProgressReport(done, total, None if eta is None else round(eta, 1))


def _in_kernel_bytes(volume: Volume) -> int:
    active, quiet = volume.capture.dirty_counts()
    return (active + (quiet if volume.fanout.bitmaps.held else 0)) * volume.geometry.block_bytes


def _acknowledged(peer: Peer, normal: bool) -> int:
    """A sequence number of this run; a landing that is not committed yet does not count."""
    normal = normal or peer.brain.epochs.on
    epoch, sequence = peer.brain.replica_position
    return peer.brain.acknowledged if normal else sequence if epoch == peer.brain.config.epoch else 0


def _epochs(peer: Peer, now: float) -> EpochsReport:
    epochs, interval_s = peer.brain.epochs, peer.brain.config.epoch_interval_s
    assert interval_s is not None
    return EpochsReport(
        interval_s=interval_s,
        kind=epochs.kind,
        number=epochs.number,
        last=None if epochs.instant is None else _moment(now - epochs.instant),
        frozen_ms_last=round(epochs.held_ms_last, 1),
        frozen_ms_max=round(epochs.held_ms_max, 1),
        problem=epochs.problem,
    )


def _lag_seconds(peer: Peer, now: float, out_of_sync_bytes: int) -> float | None:
    since, epochs = peer.in_sync_at, peer.brain.epochs
    if epochs.on:  # the bitmaps may know of writes whose records are still to come
        since = epochs.instant if out_of_sync_bytes else epochs.in_sync_at(now)
    return now - since if since is not None else None


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
