"""Makes the report of a running primary, of which the command line and every dashboard show parts."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime

from pydbt.controller.clocks import passed_s
from pydbt.controller.expiry import identity_report
from pydbt.controller.primary.combined import combined, lacking_at_most
from pydbt.controller.primary.era_checkpoints import EraCheckpoints
from pydbt.controller.primary.gate import gate_report
from pydbt.controller.primary.mark_commands import marks_report
from pydbt.controller.primary.metadata import Metadata
from pydbt.controller.primary.moments import moment_ago
from pydbt.controller.primary.peer import Peer
from pydbt.controller.primary.report import (
    CaptureReport,
    FlightReport,
    LogReport,
    LossesReport,
    PlaceReport,
    PlacesReport,
    ProgressReport,
    QueueReport,
    SecondaryReport,
    SequenceReport,
    SnapshotsReport,
    TransactionReport,
    TransactionsReport,
    VolumeReport,
    WriteIntentReport,
)
from pydbt.controller.primary.volume import Volume
from pydbt.core.blocks.runs import Runs
from pydbt.core.calendar import time_of_ns
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.landing import SnapshotStatus
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.named_transaction import NamedTransaction
from pydbt.core.primary.reported_state import reported_state
from pydbt.core.primary.status import LogStatus, PrimaryStatus
from pydbt.core.primary.verifier import SHOWN_RUNS
from pydbt.core.transactions.followed_log import NO_FOOTING
from pydbt.core.units import Geometry
from pydbt.kernel.counters import Counters


def volume_report(volume: Volume, checkpoints: EraCheckpoints, *, exact: bool = True) -> VolumeReport:
    """The volume and all of its secondaries now; never more favourable than the truth.

    Not ``exact``: what the volume as a whole lacks is an upper bound, and no map is looked through for it.
    """
    state, brains, counters = volume.metadata.on_disk, volume.brains, volume.capture.counters()
    in_kernel = in_kernel_bytes(volume)
    secondaries = [
        _secondary_report(peer, in_kernel, volume.metadata, checkpoints.report(peer)) for peer in volume.peers.values()
    ]
    # The brain that counted longest has counted most.
    longest = max(brains, key=lambda brain: brain.state.statistics.written_bytes)
    normal = all(brain.mode is Mode.NORMAL for brain in brains)
    out_of_sync, unacknowledged = lacking_at_most(secondaries, state.size_bytes)
    if exact and out_of_sync is not None and len(secondaries) > 1:
        lacking, on_the_way = volume.fanout.lacking_bytes()
        unmerged = 0 if normal else in_kernel
        out_of_sync = min(lacking + unmerged, state.size_bytes)
        unacknowledged = _unacknowledged(lacking, on_the_way, unmerged, state.size_bytes)
    return VolumeReport(
        role="primary",
        source=volume.device.path,
        volume=state.volume,
        size_bytes=state.size_bytes,
        block_bytes=state.block_bytes,
        together=replace(
            combined(secondaries),
            generations=secondaries[0].generations if len(secondaries) == 1 else state.generations,
            out_of_sync_bytes=out_of_sync,
            unacknowledged_bytes=unacknowledged,
        ),
        capture=_capture(volume),
        audit=volume.auditor.report(),
        in_flight=FlightReport(
            known=all(brain.state.in_flight.certain for brain in brains),
            bytes=max(brain.state.in_flight.extents().total() for brain in brains) * state.block_bytes,
        ),
        written_bytes=longest.state.statistics.written_bytes,
        write_rate_bytes=round(longest.state.statistics.write_rate_bytes(time.monotonic())),
        queue=QueueReport(size=volume.capture.data_size_bytes(), used=volume.capture.data_used_bytes()),
        transactions=transactions_report(volume),
        marks=marks_report(volume),
        lost_records=counters.lost_records + counters.lost_completions,
        losses=_losses(counters),
        notices=volume.notices,
        writing_out=volume.writeout.place,
        secondaries=tuple(secondaries),
        identity=identity_report(next((peer.connection.secure for peer in volume.peers.values()), None)),
        gate=gate_report(volume.options.state_dir),
    )


def _losses(counters: Counters) -> LossesReport:
    return LossesReport(
        submissions=counters.lost_records,
        completions=counters.lost_completions,
        data=counters.no_payload,
        unknown_kinds=counters.unknown_ops,
        passthrough=counters.passthrough,
        missed=counters.recursion_misses,
    )


def _capture(volume: Volume) -> CaptureReport:
    if not any(brain.snapshot_based for brain in volume.brains):
        return CaptureReport("payload", "")
    wanted = volume.options.capture == "payload"
    return CaptureReport("addresses", volume.capture.payload_reason if wanted else "")


def _secondary_report(
    peer: Peer, in_kernel_bytes: int, metadata: Metadata, write_intent: WriteIntentReport | None
) -> SecondaryReport:
    """``in_kernel_bytes``: blocks that the kernel's bitmaps name beyond those that the brain knows."""
    record, config, size_bytes = metadata.shown(peer.number), peer.brain.config, metadata.on_disk.size_bytes
    # The wall clock first: this process may not get to run between the two, and no moment is to be told too late.
    wall, now = datetime.now(UTC), time.monotonic()
    status = peer.brain.status(now)
    normal = status.mode is Mode.NORMAL
    # Outside of normal mode the kernel's bitmaps name further blocks; they may overlap with ours (an upper bound).
    unmerged = 0 if normal else in_kernel_bytes
    out_of_sync = min(status.out_of_sync_bytes + unmerged, size_bytes)
    unacknowledged = _unacknowledged(status.out_of_sync_bytes, status.on_the_way_bytes, unmerged, size_bytes)
    lag_bytes = status.unacknowledged_bytes if normal else out_of_sync
    lag_seconds = _lag_seconds(status, peer.in_sync_at, out_of_sync, now)
    return SecondaryReport(
        secondary=record.address,
        connected=status.connected,
        connection_problem=str(peer.refusal or status.connection_problem),
        refused=peer.refusal.code if peer.refusal is not None else "",
        mode=str(status.mode),
        mode_since=moment_ago(passed_s(status.mode_since, now)),
        phase=str(status.phase),
        waiting_for=status.waiting_for,
        replica_state=reported_state(status, lag_seconds, out_of_sync),
        tainted=bool(status.taints),
        taints=status.taints,
        verify=peer.verification.report(),
        write_intent=write_intent,
        assumed_in_sync=record.phase == "assumed" or config.assumed_in_sync,
        sequence=SequenceReport(submitted=status.sequence, acknowledged=_acknowledged(status, config.epoch)),
        transaction=_transaction(status.transactions.held, now),
        out_of_sync_bytes=out_of_sync if status.known else None,
        unacknowledged_bytes=unacknowledged if status.known else None,
        unsettled_bytes=status.unsettled_bytes,
        unreadable=_places(status.unreadable, config.geometry),
        unwritable=_places(status.unwritable, config.geometry),
        lag_bytes=lag_bytes if status.known else None,
        lag_seconds=round(lag_seconds, 3) if lag_seconds is not None else None,
        last_in_sync=moment_ago(lag_seconds, wall=wall) if lag_seconds is not None else None,
        sent_bytes=peer.connection.sent_bytes,
        log=_log(status.log),
        progress=_progress(status),
        epochs=_snapshots(status.snapshots, config, now, wall),
        persist_problem=status.persist_problem,
        generations=record.generations,
        statistics=status.statistics,
    )


def _unacknowledged(out_of_sync_bytes: int, on_the_way_bytes: int, unmerged_bytes: int, size_bytes: int) -> int:
    """Of what is reported as out of sync, which never exceeds the volume, the part that only waits for an acknowledgement."""
    others = out_of_sync_bytes - on_the_way_bytes + unmerged_bytes
    return min(out_of_sync_bytes + unmerged_bytes, size_bytes) - min(others, size_bytes)


def transactions_report(volume: Volume) -> TransactionsReport:
    """What a transaction is on this volume, and the newest that is committed. Nothing is named while the log is not seen."""
    watch, now = volume.transactions, time.monotonic()
    known = [newest for brain in volume.brains if (newest := brain.transactions.newest) is not None]
    if watch is None or (watch.problem and not (known and watch.problem == NO_FOOTING)):
        reason = "the log of the file system is not followed" if watch is None else watch.problem
        return TransactionsReport("write-request", reason, None if watch is None else watch.file_system, None, None)
    if not any(brain.state.payload_on for brain in volume.brains):
        return TransactionsReport("write-request", "no writes are streamed now", watch.file_system, None, None)
    newest = max(known, key=lambda one: one.ordinal, default=None)
    rate = round(watch.per_second(now), 1)
    return TransactionsReport("file-system", "", watch.file_system, _transaction(newest, now), rate)


def _transaction(named: NamedTransaction | None, now: float) -> TransactionReport | None:
    if named is None:
        return None
    age_s = None if named.submitted_at is None else max(0.0, passed_s(named.submitted_at, now))
    committed = None if age_s is None else moment_ago(age_s)
    if named.committed_ns is not None:
        committed = time_of_ns(named.committed_ns)
    return TransactionReport(named.name, committed, None if age_s is None else round(age_s, 3), named.sequence)


def moment_of_age(at: float, now: float) -> str:
    """The time of a moment of the monotonic clock, by the clock of now."""
    return moment_ago(max(0.0, passed_s(at, now)))


def _progress(status: PrimaryStatus) -> ProgressReport:
    pace, eta = status.pace, status.pace.eta_seconds
    return ProgressReport(
        done_bytes=status.done_bytes,
        total_bytes=status.total_bytes,
        rate_bytes=round(pace.rate_bytes),
        eta_seconds=None if eta is None else round(eta, 1),
        still_seconds=pace.still_seconds,
    )


def _places(runs: Runs, geometry: Geometry) -> PlacesReport:
    places = [geometry.bytes_of_blocks(*run) for run in zip(*(column.tolist() for column in runs), strict=True)]
    shown = tuple(PlaceReport(*place) for place in places[:SHOWN_RUNS])
    return PlacesReport(sum(length for _, length in places), shown)


def _log(log: LogStatus) -> LogReport:
    return LogReport(log.capacity_bytes, log.used_bytes, log.start, log.end, log.active_transactions)


def in_kernel_bytes(volume: Volume) -> int:
    """Blocks that the kernel's bitmaps name beyond those that the brains know, outside of mode normal.

    In mode normal nobody asks for them: to count them in the bitmaps of 16 TiB takes some tenths of a second.
    """
    if all(brain.mode is Mode.NORMAL for brain in volume.brains):
        return 0
    return sum(volume.capture.dirty_counts(with_quiet=volume.fanout.bitmaps.held)) * volume.geometry.block_bytes


def _acknowledged(status: PrimaryStatus, this_epoch: int) -> int:
    """A sequence number of this run; a landing that is not committed yet does not count."""
    if status.mode is Mode.NORMAL or status.snapshots is not None:
        return status.acknowledged
    epoch, sequence = status.replica_position
    return sequence if epoch == this_epoch else 0


def _snapshots(
    snapshots: SnapshotStatus | None, config: PrimaryConfig, now: float, wall: datetime
) -> SnapshotsReport | None:
    interval_s = config.snapshot_interval_s
    if snapshots is None or interval_s is None:
        return None
    return SnapshotsReport(
        interval_s=interval_s,
        kind=snapshots.kind,
        number=snapshots.number,
        last=None if snapshots.instant is None else moment_ago(passed_s(snapshots.instant, now), wall=wall),
        frozen_ms_last=round(snapshots.held_ms_last, 1),
        frozen_ms_max=round(snapshots.held_ms_max, 1),
        problem=snapshots.problem,
    )


def _lag_seconds(status: PrimaryStatus, since: float | None, out_of_sync_bytes: int, now: float) -> float | None:
    snapshots = status.snapshots
    if not status.known:
        return None
    if snapshots is not None:  # the bitmaps may know of writes whose records are still to come
        since = snapshots.instant if out_of_sync_bytes else snapshots.in_sync_at
    return passed_s(since, now) if since is not None else None
