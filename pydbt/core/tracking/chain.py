"""Whether every write since the maps were written is known, and if not, the link that is missing.

The chain has two kinds of links. Either programs in the kernel have seen every write (they were left by a run, or attached by
``controller arm``); or a *closing record* was written, and nothing was written after it. The facts are read by
``pydbt/controller/primary/programs.py`` and ``pydbt/device/clean.py``; here they are judged. An answer is one clause for a
person, and empty when the chain is whole. Patent: paragraphs 90 (restart of the replication facility) and 100 (tracking by an
administrator's command).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class ProgramsFound(Enum):
    """The programs of a volume in the kernel, as its pins show them."""

    NONE = auto()
    UNREADABLE = auto()
    OF_ANOTHER_RANGE = auto()
    PRESENT = auto()


@dataclass(frozen=True, slots=True)
class TrackingFacts:
    """What was written down of the programs, and what is found now.

    ``kept_boot`` is empty when they may not be attached. ``kept_attachment`` is the name of the attachment that was armed, and
    empty for the programs of a run. ``faults`` are the writes that the programs have missed since they were audited last.
    ``below``: why the content may have changed below the device.
    """

    kept_boot: str
    boot: str
    kept_disk_sequence: int | None
    disk_sequence: int | None
    pinned: ProgramsFound
    kept_attachment: str = ""
    attachment: str = ""
    faults: tuple[str, ...] = ()
    below: str = ""


@dataclass(frozen=True, slots=True)
class ClosingFacts:
    """A closing record, and what is found now. In the same boot the kernel's counts and what lies below tell, later the file
    system. ``kernel`` is the release under which the record was written, empty where it was not kept; ``fingerprint_kept``
    whether it has a fingerprint.
    """

    same_boot: bool
    counts_agree: bool = False
    below: str = ""
    fingerprint_kept: bool = False
    in_use: bool = False
    fingerprint_agrees: bool = False
    kernel: str = ""
    kernel_now: str = ""


def tracking_gap(facts: TrackingFacts) -> str:
    """Why the programs may not have seen every write since the maps were written."""
    if not facts.kept_boot:
        return "the last start or arming did not get as far as tracking"
    if facts.kept_boot != facts.boot:
        return "the machine was booted since programs tracked it"
    if facts.pinned is ProgramsFound.NONE:
        return "the programs that tracked it were taken out of the kernel"
    if facts.pinned is ProgramsFound.UNREADABLE:
        return "the programs that tracked it cannot be read"
    if facts.kept_disk_sequence != facts.disk_sequence:
        return "the device was away, and was attached anew"
    if facts.pinned is ProgramsFound.OF_ANOTHER_RANGE:
        return "the programs track another range of sectors than the device has now"
    if facts.kept_attachment and facts.kept_attachment != facts.attachment:
        return "the programs in the kernel are not those that were armed"
    if facts.faults:
        return f"the programs missed {facts.faults[0]}"
    return facts.below


def closing_gap(facts: ClosingFacts | None) -> str:
    """Why something may have been written after the closing record; None: there is no such record."""
    if facts is None:
        return "no closing record was written after the last write"
    if facts.same_boot:
        if not facts.counts_agree:
            return "the device was written after the closing record, or the kernel does not count its writes"
        return facts.below
    if not facts.fingerprint_kept:
        return (
            "the closing record has no fingerprint of a file system: it was in use then, was not unmounted cleanly, or is no "
            "ext4 or XFS"
        )
    if facts.in_use:
        return "the device was in use already, mounted for example, before it was armed"
    if facts.fingerprint_agrees:
        return ""
    where = f" (under Linux {facts.kernel}; this is {facts.kernel_now})" if _other_kernel(facts) else ""
    return f"the file system was written after the closing record{where}: mounted, checked or restored while nothing tracked it"


def missing_link(tracking: str, closing: str, *, closed: bool, unarmed: str = "") -> str:
    """One clause of both answers; empty when either of them is.

    ``unarmed``: why the boot since then did not arm the volume before its mount; empty where that is not known, or there was no
    boot. Alone it breaks nothing: the mount may have come later, or not at all.
    """
    if not tracking or not closing:
        return ""
    link = closing if closed else f"{tracking}, and {closing}"
    return f"{link} (it was not armed before its mount: {unarmed})" if unarmed else link


def _other_kernel(facts: ClosingFacts) -> bool:
    return bool(facts.kernel) and facts.kernel != facts.kernel_now
