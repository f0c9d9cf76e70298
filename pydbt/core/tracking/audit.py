"""The audit: the sectors that capture has seen are compared with the kernel's own count, all the time.

A write is seen when it is submitted and counted when it completes. So the kernel's count minus capture's never exceeds
what that difference is when nothing is in flight (the *offset*): if it does, something was written that capture never
saw. The other way round, a write that was seen and never counted (it failed before it reached the disk, or went
to the disk that a partition lies on) makes the difference smaller: that loses no block.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

# The offset is known when two looks this far apart found the disk idle and the same difference.
STEADY_S = 0.9
# A smaller difference becomes the offset only after it has lasted longer than any request may be held back.
LOWER_AFTER_S = 40.0

FAULTS = {
    "unknown_ops": "a write of a kind whose blocks capture does not know",
    "passthrough": "a command that went to the disk past the block layer",
    "recursion_misses": "a write that the kernel did not show, because a program interrupted itself",
}
"""Capture's own counters that may not grow, each with its meaning."""


@dataclass(frozen=True, slots=True)
class Look:
    """Both counts at one moment; the kernel's is taken first. ``idle``: nothing was in flight before and after.

    ``attach`` names the programs that count (they begin anew with each attach). Sectors have 512 bytes;
    ``completed_sectors`` is ``completed_by_bio`` where a completion does not tell how long it is.
    ``counted_sectors`` None: the kernel keeps no count for this device.
    """

    attach: str
    seen_sectors: int
    completed_sectors: int
    counted_sectors: int | None
    idle: bool
    faults: dict[str, int]


def completed_by_bio(seen_sectors: int, submitted: int, completed: int) -> int:
    """Sectors that have completed at most, told by the numbers of bios.

    A completion on a bio-based device has the size of the rest of its bio. Device-mapper splits a write at a boundary of its
    targets by submitting the rest of the same bio again, which the kernel does not trace anew: the bio completes once, as
    long as its last part. Other drivers use it up. So a bio that is missing counts for one sector, and none other for any.
    """
    return seen_sectors - (submitted - completed)


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """What is kept across controllers, for the same attach.

    ``offset_sectors``: see above; None before it is known. ``unseen_sectors``: completions that were never shown and
    whose blocks were read again. ``faults``: the value of each counter of ``FAULTS`` that was reported last.
    """

    attach: str = ""
    offset_sectors: int | None = None
    unseen_sectors: int | None = None
    faults: dict[str, int] | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, kept: dict[str, Any] | None) -> AuditRecord:
        """ValueError or TypeError when it is none."""
        return cls(**kept) if kept else cls()


def grown_faults(kept: AuditRecord, attach: str, faults: dict[str, int]) -> list[str]:
    """What programs that nobody audits have missed since they were audited last, in the words of ``FAULTS``."""
    told = (kept.faults or {}) if kept.attach == attach else {}
    return [FAULTS[name] for name, count in faults.items() if count > told.get(name, 0)]


def missed_unaudited(kept: AuditRecord, look: Look) -> list[str]:
    """What programs have missed since they were audited last, by one look at any moment, in words that follow "missed"."""
    found = grown_faults(kept, look.attach, look.faults)
    if kept.attach == look.attach and kept.offset_sectors is not None and look.counted_sectors is not None:
        unseen = look.counted_sectors - look.seen_sectors - kept.offset_sectors
        if unseen > 0:
            found.append(f"{unseen} sectors of writes that the kernel has counted")
    return found


def first_record(look: Look) -> AuditRecord:
    """Of programs that were just attached, and that nobody audits yet: from here on no write may be counted unseen.

    Only an idle disk tells the offset: a write in flight was seen and not counted, or it was submitted before the attach.
    """
    offset = look.counted_sectors - look.seen_sectors if look.idle and look.counted_sectors is not None else None
    return AuditRecord(look.attach, offset, faults=dict(look.faults))


@dataclass(frozen=True, slots=True)
class AuditReport:
    """Whether both counts agree, in words, and how far they may part unnoticed. The fields are keys of the status."""

    verdict: str
    margin_sectors: int | None
    unseen_completions_sectors: int | None
    looks: int


class Audit:
    """Feed it looks; it says what taints the volume. ``record`` is to be written down when it has changed.

    ``inherited``: another controller attached the programs, and was perhaps killed before it had written anything down.
    """

    def __init__(self, kept: AuditRecord, inherited: bool = False) -> None:
        self.record = kept
        self._steady: tuple[int, float] | None = None  # difference, since when
        self._difference: int | None = None
        self._available = True
        self._candidate: int | None = None  # sectors that were seen and not completed, at the last look at an idle disk
        self._unasked = inherited  # what completed unseen before this controller began is still to be looked at
        self.looks = 0

    def look(self, look: Look, all_completed: bool, now: float) -> list[str]:
        """What this look shows that taints, one sentence each. ``all_completed``: the primary waits for no completion."""
        if look.attach != self.record.attach:
            self.record, self._candidate = AuditRecord(attach=look.attach), None
        self.looks += 1
        return [*self._faults(look), *self._unseen_writes(look, now), *self._unseen_completions(look, all_completed)]

    def _faults(self, look: Look) -> list[str]:
        grown = grown_faults(self.record, look.attach, look.faults)
        if grown or self.record.faults is None:
            self.record = replace(self.record, faults=dict(look.faults))
        return grown

    def _unseen_writes(self, look: Look, now: float) -> list[str]:
        self._available = look.counted_sectors is not None
        if look.counted_sectors is None:
            return []
        difference = self._difference = look.counted_sectors - look.seen_sectors
        offset = self.record.offset_sectors
        if offset is not None and difference > offset:
            self.record = replace(self.record, offset_sectors=difference)
            return [f"the kernel has counted {difference - offset} sectors of writes that capture did not see"]
        self._learn(look, difference, now)
        return []

    def _learn(self, look: Look, difference: int, now: float) -> None:
        """The offset, from looks at an idle disk."""
        if not look.idle:
            self._steady = None
            return
        if self._steady is None or self._steady[0] != difference:
            self._steady = (difference, now)
        lasted = now - self._steady[1]
        offset = self.record.offset_sectors
        if (offset is None and lasted >= STEADY_S) or (
            offset is not None and difference < offset and lasted >= LOWER_AFTER_S
        ):
            self.record = replace(self.record, offset_sectors=difference)

    def _unseen_completions(self, look: Look, all_completed: bool) -> list[str]:
        """A completion that was never shown is noticed by the primary, unless it is killed before: that shows here."""
        if not (look.idle and all_completed):
            return []
        unseen = look.seen_sectors - look.completed_sectors
        if unseen != self._candidate:
            # The kernel counts a request as ended before it shows that (blk_mq_complete_request), and without records nothing
            # else tells of one in between: such a difference is gone at the next look.
            self._candidate = unseen
            return []
        # A counter without an entry was never reported.
        before = self.record.unseen_sectors or 0
        self.record = replace(self.record, unseen_sectors=unseen)
        first, self._unasked = self._unasked, False
        if first and unseen > before:
            return [f"{unseen - before} sectors of writes completed unseen while no controller could notice"]
        return []

    def report(self) -> AuditReport:
        """For the status: whether both counts agree, and by how many sectors they may still part unnoticed."""
        offset, difference = self.record.offset_sectors, self._difference
        if not self._available:
            verdict = "unavailable: the kernel keeps no count of this device's writes (queue/iostats is off)"
        elif offset is None or difference is None:
            verdict = "waiting for an idle instant of the disk"
        else:
            verdict = "agrees"
        margin = None if offset is None or difference is None else offset - difference
        return AuditReport(verdict, margin, self.record.unseen_sectors, self.looks)
