"""The marks that a replica holds: those in its journal, and those that a checkpoint has passed, which are kept beside its state.

A mark that is held once is never lost by a crash: a checkpoint passes its record only after the file has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydbt.core.calendar import time_of_ns
from pydbt.core.protocol.mark import NamedMark

KEPT_MARKS = 16
"""The newest of them: 5 KiB of a file that is written at a checkpoint behind a mark."""


@dataclass(frozen=True, slots=True)
class HeldMark:
    """A mark in the numbers of an epoch: the image there is the volume as of it, and a later image of that epoch holds everything
    before it. One of another epoch holds what the primary's disk had in that run: after a loss of power perhaps less."""

    mark: NamedMark
    epoch: int

    def in_image_of(self, image_epoch: int) -> bool:
        """Whether the image is known to have everything before it."""
        return self.epoch == image_epoch

    @property
    def moment(self) -> str | None:
        """When it was set, by the primary's clock."""
        return time_of_ns(self.mark.set_ns + self.mark.clock_offset_ns)


@dataclass(frozen=True, slots=True)
class MarkReport:
    """A mark as the report has it. ``number`` and ``epoch``: 16 hexadecimal digits. ``synced``: file systems were written out
    first; ``partly``: but not all. ``uncertain_bytes``: as of ``NamedMark``. ``resynchronized``: the image is of another run of a
    primary, so that it perhaps has not everything before the mark."""

    name: str
    number: str
    moment: str | None
    epoch: str
    sequence: int
    synced: bool
    partly: bool
    uncertain_bytes: int
    resynchronized: bool

    @classmethod
    def of(cls, held: HeldMark, image_epoch: int) -> MarkReport:
        mark = held.mark
        return cls(
            mark.name, f"{mark.number:016x}", held.moment, f"{held.epoch:016x}", mark.sequence, mark.synced, mark.partly,
            mark.uncertain_bytes, not held.in_image_of(image_epoch),
        )  # fmt: skip


class HeldMarks:
    """The newest ``KEPT_MARKS``, the oldest first."""

    def __init__(self, marks: Iterable[HeldMark] = ()) -> None:
        self._marks = tuple(marks)[-KEPT_MARKS:]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HeldMarks) and self._marks == other._marks

    __hash__ = None  # type: ignore[assignment]

    def with_mark(self, mark: NamedMark, epoch: int) -> HeldMarks:
        """And this one, which is found again in the journal after it was kept."""
        others = [held for held in self._marks if held.mark.number != mark.number]
        return HeldMarks([*others, HeldMark(mark, epoch)])

    @property
    def newest(self) -> HeldMark | None:
        return self._marks[-1] if self._marks else None

    @property
    def numbers(self) -> tuple[int, ...]:
        """Of all of them, the newest last."""
        return tuple(held.mark.number for held in self._marks)

    def report(self, image_epoch: int) -> tuple[MarkReport, ...]:
        """The newest first."""
        return tuple(MarkReport.of(held, image_epoch) for held in reversed(self._marks))

    def to_values(self) -> list[dict[str, Any]]:
        """For a file: the body of each mark as hexadecimal digits, and its epoch."""
        return [{"epoch": f"{held.epoch:016x}", "mark": held.mark.to_bytes().hex()} for held in self._marks]

    @classmethod
    def from_values(cls, values: object) -> HeldMarks:
        """Raises ValueError, KeyError, TypeError or struct.error for what ``to_values`` has not made."""
        if not isinstance(values, list):
            raise ValueError("marks are a list")
        return cls(HeldMark(NamedMark.from_bytes(bytes.fromhex(one["mark"])), int(one["epoch"], 16)) for one in values)
