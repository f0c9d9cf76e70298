"""The audit: the sectors that capture has seen are compared with the kernel's own count, all the time.

A write is seen when it is submitted and counted when it completes. So the kernel's count minus capture's never exceeds
what that difference is when nothing is in flight (the *offset*): if it does, something was written that capture never
saw. The other way round, a write that was seen and never counted (it failed before it reached the disk, or went
to the disk that a partition lies on) makes the difference smaller: that loses no block.

Where the kernel can preempt a program, a second one marks and counts the same writes. Each may miss some, and then the
other has marked them. A write that neither has seen makes both differences larger. The sectors by which the two counts
part tell how many one of them missed, and the offset of that one grows by as many.
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
    "unmarked_misses": "a write that the kernel did not show, because a program interrupted itself",
}
"""Capture's own counters that may not grow, each with its meaning."""


@dataclass(frozen=True, slots=True)
class Parted:
    """The sectors that the second program has counted minus those of the first; events that the kernel refused to each."""

    sectors: int
    seen_misses: int
    marked_misses: int


@dataclass(frozen=True, slots=True)
class Look:
    """Both counts at one moment; the kernel's is taken first. ``idle``: nothing was in flight before and after.

    ``attach`` names the programs that count (they begin anew with each attach). Sectors have 512 bytes;
    ``marked_sectors``: seen as well, by a second program; None where there is none. ``parted`` is None when writes came while
    the two were read. ``completed_sectors`` is ``completed_by_bio`` where a completion does not tell how long it is.
    ``counted_sectors`` None: the kernel keeps no count for this device.
    """

    attach: str
    seen_sectors: int
    completed_sectors: int
    counted_sectors: int | None
    idle: bool
    faults: dict[str, int]
    marked_sectors: int | None = None
    parted: Parted | None = None

    @property
    def differences(self) -> tuple[int, int] | None:
        """The kernel's count minus that of each program that sees submissions; None when the kernel keeps no count."""
        if self.counted_sectors is None:
            return None
        marked = self.seen_sectors if self.marked_sectors is None else self.marked_sectors
        return self.counted_sectors - self.seen_sectors, self.counted_sectors - marked


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
    ``marked_offset_sectors``: the offset of the second program that marks; None without one. ``parted``: how far both were
    apart when that was looked at last.
    """

    attach: str = ""
    offset_sectors: int | None = None
    unseen_sectors: int | None = None
    faults: dict[str, int] | None = None
    marked_offset_sectors: int | None = None
    parted: Parted | None = None

    def as_dict(self) -> dict[str, Any]:
        kept = asdict(self)
        for name in ("marked_offset_sectors", "parted"):
            if kept[name] is None:
                del kept[name]
        return kept

    def with_offsets(self, offsets: tuple[int, int], look: Look) -> AuditRecord:
        """The same with the differences of this look as offsets."""
        if look.marked_sectors is None:
            return replace(self, offset_sectors=offsets[0])
        return replace(
            self, offset_sectors=offsets[0], marked_offset_sectors=offsets[1], parted=look.parted or self.parted
        )

    def unseen_by_all(self, look: Look) -> int:
        """Sectors that were counted, and that no program can have seen. 0 when that is not known."""
        if self.offset_sectors is None or look.differences is None:
            return 0
        excess = look.differences[0] - self.offset_sectors
        if self.marked_offset_sectors is not None and look.marked_sectors is not None:
            excess = min(excess, look.differences[1] - self.marked_offset_sectors)
        return max(0, excess)

    @classmethod
    def of(cls, kept: dict[str, Any] | None) -> AuditRecord:
        """ValueError or TypeError when it is none."""
        if not kept:
            return cls()
        parted = kept.get("parted")
        return cls(**(kept | ({"parted": Parted(**parted)} if parted else {})))

    def explained(self, look: Look) -> AuditRecord:
        """With the sectors that one of two programs alone was refused for since the last look that tells them."""
        now, before = look.parted, self.parted
        if now is None or now == before or self.offset_sectors is None or self.marked_offset_sectors is None:
            return self
        if before is None:
            return replace(self, parted=now)
        apart = now.sectors - before.sectors
        seen_misses, marked_misses = now.seen_misses > before.seen_misses, now.marked_misses > before.marked_misses
        record = replace(self, parted=now)
        if apart > 0 and seen_misses and not marked_misses:
            return replace(record, offset_sectors=self.offset_sectors + apart)
        if apart < 0 and marked_misses and not seen_misses:
            return replace(record, marked_offset_sectors=self.marked_offset_sectors - apart)
        return record


def grown_faults(kept: AuditRecord, attach: str, faults: dict[str, int]) -> list[str]:
    """What programs that nobody audits have missed since they were audited last, in the words of ``FAULTS``."""
    told = (kept.faults or {}) if kept.attach == attach else {}
    return [FAULTS[name] for name, count in faults.items() if count > told.get(name, 0)]


def missed_unaudited(kept: AuditRecord, look: Look) -> list[str]:
    """What programs have missed since they were audited last, by one look at any moment, in words that follow "missed"."""
    found = grown_faults(kept, look.attach, look.faults)
    if kept.attach == look.attach and (unseen := kept.explained(look).unseen_by_all(look)):
        found.append(f"{unseen} sectors of writes that the kernel has counted")
    return found


def first_record(look: Look) -> AuditRecord:
    """Of programs that were just attached, and that nobody audits yet: from here on no write may be counted unseen.

    Only an idle disk tells the offset: a write in flight was seen and not counted, or it was submitted before the attach.
    """
    record = AuditRecord(look.attach, faults=dict(look.faults))
    return record.with_offsets(look.differences, look) if look.idle and look.differences else record


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
        self._steady: tuple[tuple[int, int], float] | None = None  # differences, since when
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
        if look.differences is None:
            return []
        self._difference = look.differences[0]
        self.record = self.record.explained(look)
        if unseen := self.record.unseen_by_all(look):
            self.record = self.record.with_offsets(look.differences, look)
            return [f"the kernel has counted {unseen} sectors of writes that capture did not see"]
        self._learn(look, look.differences, now)
        return []

    def _learn(self, look: Look, differences: tuple[int, int], now: float) -> None:
        """The offsets, from looks at an idle disk."""
        if not look.idle:
            self._steady = None
            return
        if self._steady is None or self._steady[0] != differences:
            self._steady = (differences, now)
        lasted = now - self._steady[1]
        if lasted >= (STEADY_S if self.record.offset_sectors is None else LOWER_AFTER_S):
            self.record = self.record.with_offsets(differences, look)

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
