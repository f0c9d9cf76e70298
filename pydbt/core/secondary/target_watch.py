"""Whether somebody else has changed the target: what it looked like after the last write of ours, and what it looks like now.

A replica whose target was changed by others is no image of any moment. It is compared as a whole before it is consistent again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from pydbt.core.protocol.frame_checks import check_u64


@dataclass(frozen=True, slots=True)
class TargetLook:
    """The target at one moment. What is None cannot be told of this target, or not at this moment.

    ``modified_ns``: when the content of an image file was changed last; ``written``: counts that change within a boot with
    every write to a block device; ``beginning``: a digest of the first blocks, where file systems note that they were mounted.
    """

    size_bytes: int
    modified_ns: int | None = None
    written: dict[str, Any] | None = None
    beginning: str | None = None

    def change_since(self, then: TargetLook) -> str:
        """What others have done to the target since then, as the end of a sentence; empty when nothing shows."""
        if self.size_bytes < then.size_bytes:
            return f"was cut short, from {then.size_bytes} to {self.size_bytes} bytes"
        pairs = [
            (then.modified_ns, self.modified_ns),
            (then.beginning, self.beginning),
            *_comparable(then.written, self.written),
        ]
        if any(before is not None and now is not None and before != now for before, now in pairs):
            return "was changed by another program"
        return ""


def _comparable(then: dict[str, Any] | None, now: dict[str, Any] | None) -> list[tuple[object, object]]:
    """Counts begin anew when a device is attached again; the file behind it, if there is one, tells all the same."""
    if then is None or now is None:
        return []
    if then.get("disk_sequence") != now.get("disk_sequence"):
        return [(then.get("backing_file"), now.get("backing_file"))]
    return [(then, now)]


@dataclass(frozen=True, slots=True)
class KeptLook:
    """What a process leaves behind for the next one.

    ``incarnation``: of the journal's opening in which it was made (``ReplicaRecord``). ``boot``: the boot in which. ``writing``:
    a write of ours was under way, so that nobody can tell. ``durable``: it was made after everything was on the disk, and holds
    after a power loss. ``changed``: what others had done by then.
    ``emptied``: the number of the disk's attachment in which its size was 0, as that of a disk is that was unplugged.
    """

    incarnation: int
    boot: str
    look: TargetLook
    writing: bool = False
    durable: bool = False
    changed: str = ""
    emptied: int | None = None

    def to_values(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_values(cls, values: object) -> KeptLook:
        """Raises ValueError, TypeError or KeyError unless ``values`` are a kept look's."""
        if not isinstance(values, dict) or not isinstance(values["look"], dict):
            raise ValueError("a kept look has a look")
        known = {field.name for field in fields(cls)}
        known -= {"look"} if "emptied" in values else {"look", "emptied"}  # earlier versions have none
        kept = cls(**{name: values[name] for name in known}, look=TargetLook(**values["look"]))
        check_u64("incarnation", kept.incarnation)
        check_u64("size_bytes", kept.look.size_bytes)
        return kept


def may_be_another(kept: KeptLook | None, incarnation: int, boot: str, now: TargetLook) -> bool:
    """Whether a device without a lasting name looks like another one than before the machine was started again.

    Only a look that was kept after everything was on the disk tells that.
    """
    if kept is None or kept.incarnation != incarnation or kept.boot == boot or kept.writing or not kept.durable:
        return False
    return None not in (kept.look.beginning, now.beginning) and kept.look.beginning != now.beginning


def was_emptied(kept: KeptLook, boot: str, attachment: int | None) -> str:
    """As a change's words: the size was 0, and the disk never left, so that it was cut short and has its size again.

    ``attachment``: the number of the disk's attachment now, which a disk that is plugged in again does not keep.
    """
    if kept.emptied is None or kept.boot != boot or kept.emptied != attachment:
        return ""
    return f"was cut short, from {kept.look.size_bytes} to 0 bytes"


def change_while_away(
    kept: KeptLook | None, incarnation: int, boot: str, now: TargetLook, attachment: int | None = None
) -> str:
    """What others did to the target since the last process ended, as the end of a sentence; empty when nothing shows.

    ``incarnation``: the one on record, of the last opening of the journal. ``attachment``: of the disk, as of ``was_emptied``.
    """
    if kept is None or kept.incarnation != incarnation:
        return ""
    if kept.changed:
        return kept.changed
    if emptied := was_emptied(kept, boot, attachment):
        return emptied
    if kept.writing or not (kept.durable or kept.boot == boot):
        return TargetLook(now.size_bytes).change_since(kept.look)
    if kept.boot != boot:  # counts begin anew with a boot
        now = TargetLook(now.size_bytes, now.modified_ns, None, now.beginning)
    return now.change_since(kept.look)
