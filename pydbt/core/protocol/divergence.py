"""What a side of a split brain has that the other side never had: for the person who chooses whose changes are lost."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from pydbt.core.protocol.frame_checks import check_text, check_u64

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Divergence:
    """Moments are RFC 3339, by the clock of ``host``; empty where they are not known.

    ``last_common``: of the last write that both sides have. ``first_alone``, ``last_alone``: of the first and the last write
    that only this side has. ``differing_bytes``: blocks in which these writes may lie; None when that is not known.
    """

    host: str = ""
    device: str = ""
    last_common: str = ""
    first_alone: str = ""
    last_alone: str = ""
    differing_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in ("host", "device"):
            check_text(name, getattr(self, name), 1024)
        for name in ("last_common", "first_alone", "last_alone"):
            check_text(name, getattr(self, name), 64)
        if self.differing_bytes is not None:
            check_u64("differing_bytes", self.differing_bytes)

    def to_values(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_values(cls, values: object) -> Divergence:
        """Raises ValueError unless ``values`` are exactly what ``to_values`` makes."""
        if not isinstance(values, dict) or values.keys() != {field.name for field in fields(cls)}:
            raise ValueError("a side of a split brain has other keys")
        return cls(**values)

    @property
    def size_words(self) -> str:
        """``80.0 MiB``, or that it is not known."""
        if self.differing_bytes is None:
            return "an unknown number of MiB"
        mib = self.differing_bytes / _MIB
        return f"{mib:.1f} MiB" if mib < 100 else f"{mib:.0f} MiB"

    @property
    def choice(self) -> str:
        """What a person has to decide about what this side alone has, as a sentence; empty when that is nothing."""
        if self.differing_bytes == 0:
            return ""
        return (
            f"this side holds {self.size_words} that the other never had (last common write {short(self.last_common)}, last "
            f"write here {short(self.last_alone)}): 'controller invalidate' gives it up, 'controller promote' keeps it"
        )

    def to_report(self) -> dict[str, Any]:
        """For the status."""
        return {**self.to_values(), "words": self.choice}

    def __str__(self) -> str:
        """One side, as a part of a sentence."""
        where = (
            f"{self.host or 'a host that is not known'} ({self.device})"
            if self.device
            else self.host or "the other side"
        )
        return (
            f"{where}: last common write {short(self.last_common)}, first write of its own {short(self.first_alone)}, "
            f"last one {short(self.last_alone)}, {self.size_words} that the other side never had"
        )


def short(moment: str) -> str:
    """A moment of RFC 3339 for people, to the second."""
    if not moment:
        return "not known"
    return moment[:19].replace("T", " ") + (" UTC" if moment.endswith(("Z", "+00:00")) else moment[19:])
