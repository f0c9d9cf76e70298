"""Takes the counts for the audit, once per second: what was captured against what the kernel has counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydbt.core.primary import events as ev
from pydbt.core.primary.brain import Primary
from pydbt.core.tracking.audit import Audit, AuditRecord, AuditReport, Look, Parted, completed_by_bio
from pydbt.device.sysfs import BlockDevice
from pydbt.kernel.capture import Capture
from pydbt.kernel.counters import Counters


class Auditor:
    """Called from the loop's thread alone. ``kept``: the audit's record from before; ``inherited``: the programs ran before."""

    def __init__(self, device: BlockDevice, capture: Capture, kept: dict[str, Any] | None, inherited: bool) -> None:
        self._device, self._capture = device, capture
        self._audit = Audit(AuditRecord.of(kept), inherited=inherited)

    def look(self, brains: Sequence[Primary], now: float) -> list[ev.Event]:
        """Compare the counts once; the taints that this finds. Raises DeviceError."""
        capture = self._capture
        look = look_at(self._device, capture)
        drained = capture.consumer_position() == capture.producer_position()
        all_completed = drained and all(
            brain.state.in_flight.certain and brain.state.in_flight.empty for brain in brains
        )
        return [ev.Tainted(reason) for reason in self._audit.look(look, all_completed, now)]

    def report(self) -> AuditReport:
        """For the status."""
        return self._audit.report()

    @property
    def record(self) -> dict[str, Any]:
        """To be written down."""
        return self._audit.record.as_dict()


def look_at(device: BlockDevice, capture: Capture) -> Look:
    """Both counts of now. Raises DeviceError."""
    before, flying = device.counters(), device.in_flight_writes()
    counters = capture.counters()
    after = device.counters()
    counted = before.write_sectors + before.discard_sectors
    still = counted == after.write_sectors + after.discard_sectors
    return Look(
        attach=capture.attach_name(),
        seen_sectors=counters.submitted_sectors,
        completed_sectors=_completed_sectors(device, counters),
        counted_sectors=counted if device.counts_io() else None,
        idle=still and not flying and not device.in_flight_writes(),
        faults={
            "unknown_ops": counters.unknown_ops,
            "passthrough": counters.passthrough,
            "unmarked_misses": counters.unmarked_misses,
        },
        marked_sectors=counters.marked_sectors,
        parted=_parted(counters, capture),
    )


def _parted(counters: Counters, capture: Capture) -> Parted | None:
    """How far the counts of both programs are apart, when no write came while they were read; None for one program alone."""
    if counters.marked_sectors is None:
        return None
    again = capture.counters()
    before = counters.submitted_sectors, counters.marked_sectors, counters.submit_misses, counters.mark_misses
    after = again.submitted_sectors, again.marked_sectors, again.submit_misses, again.mark_misses
    if before != after:
        return None
    return Parted(counters.marked_sectors - counters.submitted_sectors, counters.submit_misses, counters.mark_misses)


def _completed_sectors(device: BlockDevice, counters: Counters) -> int:
    """An md volume chains the parts of a bio that it splits: each is traced, and together they are as long as the bio."""
    if not device.bio_based or device.is_md:
        return counters.completed_sectors
    submitted = counters.submitted_records + counters.lost_records
    return completed_by_bio(
        counters.submitted_sectors, submitted, counters.completed_records + counters.lost_completions
    )
