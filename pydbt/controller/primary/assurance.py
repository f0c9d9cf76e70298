"""What lets the primary call its replicas up to date: the audit, once a second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydbt.core.primary import events as ev
from pydbt.core.tracking.audit import FAULTS, Audit, AuditRecord, Look, completed_by_bio

if TYPE_CHECKING:
    from pydbt.controller.primary.loop import PrimaryLoop
    from pydbt.device.sysfs import BlockDevice
    from pydbt.kernel.counters import Counters


class Assurance:
    """Part of the primary's loop, and called from its thread alone."""

    def __init__(self, loop: PrimaryLoop, inherited: bool) -> None:
        self._loop = loop
        self._audit = Audit(AuditRecord.of(loop.kept.volume.audit), inherited=inherited)

    def look(self, now: float) -> list[ev.Event]:
        """Compare the counts once; what taints, as events. Raises DeviceError."""
        device, capture = self._loop.device, self._loop.capture
        before, flying = device.counters(), device.in_flight_writes()
        counters = capture.counters()
        after = device.counters()
        counted = before.write_sectors + before.discard_sectors
        still = counted == after.write_sectors + after.discard_sectors
        look = Look(
            attach=capture.attach_name(),
            seen_sectors=counters.submitted_sectors,
            completed_sectors=_completed_sectors(device, counters),
            counted_sectors=counted if device.counts_io() else None,
            idle=still and not flying and not device.in_flight_writes(),
            faults={name: getattr(counters, name) for name in FAULTS},
        )
        drained = capture.consumer_position() == capture.producer_position()
        settled = drained and all(brain.in_flight.certain and brain.in_flight.empty for brain in self._loop.brains)
        return [ev.Tainted(reason) for reason in self._audit.look(look, settled, now)]

    def report(self) -> dict[str, Any]:
        """For the status."""
        return self._audit.report()

    @property
    def record(self) -> dict[str, Any]:
        """What is to be written down."""
        return self._audit.record.as_dict()


def _completed_sectors(device: BlockDevice, counters: Counters) -> int:
    """An md volume chains the parts of a bio that it splits: each is traced, and together they are as long as the bio."""
    if not device.bio_based or device.is_md:
        return counters.completed_sectors
    submitted = counters.submitted_records + counters.lost_records
    return completed_by_bio(
        counters.submitted_sectors, submitted, counters.completed_records + counters.lost_completions
    )
