"""When the updates of a STREAM frame were submitted, by both clocks of the primary.

Positions alone order updates, and times only tell of them: a clock that is set back reorders nothing. The monotonic clock
counts from the boot of the primary's machine, and is never set; with the offset it tells the time of day.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pydbt.core.protocol.layout import Layout
from pydbt.core.units import Buffer

TIME_BYTES = 8
MAX_TIMES = 8_192
MAX_TIMED_EXTENTS = 60_000
"""With these two limits, and a payload of 8 MiB, a frame stays below MAX_BODY_BYTES."""

CLOCK = Layout(clock_offset_ns="q")
_NEWS_NS = 100_000
"""The two clocks are read one after the other: an offset that differs by less is taken for the same."""
_LONGEST_NS = 1 << 62


@dataclass(frozen=True, slots=True, eq=False)
class StreamTimes:
    """``submitted_ns``: of each sequence number, nanoseconds of the primary's monotonic clock; 0: not known.

    ``clock_offset_ns``: added to these it gives nanoseconds since 1970, by the primary's clock when this was sent.
    """

    clock_offset_ns: int
    submitted_ns: npt.NDArray[np.uint64]

    def __post_init__(self) -> None:
        check_offset(self.clock_offset_ns)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, StreamTimes)
            and self.clock_offset_ns == other.clock_offset_ns
            and np.array_equal(self.submitted_ns, other.submitted_ns)
        )

    def to_bytes(self) -> bytes:
        """As it lies behind the table of a STREAM frame or record."""
        return CLOCK.pack(self.clock_offset_ns) + np.asarray(self.submitted_ns, "<u8").tobytes()

    @classmethod
    def from_bytes(cls, data: Buffer) -> StreamTimes:
        """Raises ValueError, or struct.error, for what is none."""
        (offset_ns,) = CLOCK.unpack_from(data)
        return cls(offset_ns, np.frombuffer(data, "<u8", offset=CLOCK.size))


def times_bytes(sequences: int) -> int:
    """Room that the times of this many updates take."""
    return CLOCK.size + sequences * TIME_BYTES


def check_offset(clock_offset_ns: int) -> None:
    """Raises ValueError for what no clock has."""
    if type(clock_offset_ns) is not int or not -_LONGEST_NS < clock_offset_ns < _LONGEST_NS:
        raise ValueError(f"no clock is {clock_offset_ns!r} nanoseconds away from another one")


class ClockOffset:
    """The offset between the two clocks of a machine: another value only when it has changed."""

    def __init__(self) -> None:
        self._offset_ns: int | None = None

    def look(self, monotonic_ns: int, wall_ns: int) -> int:
        """Both clocks were read just now; the offset to be recorded."""
        found_ns = wall_ns - monotonic_ns
        if self._offset_ns is None or abs(found_ns - self._offset_ns) >= _NEWS_NS:
            self._offset_ns = found_ns
        return self._offset_ns
