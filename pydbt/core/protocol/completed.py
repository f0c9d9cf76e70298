"""The file system's transactions as they complete on the primary, at their place in the stream: for a history of the replica.

The same bytes are the body of the frame and of the journal's record. No acknowledgement covers them: with a connection that is
lost some may be, and a resynchronization follows then, inside of which nothing is a moment of the volume.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from pydbt.core.protocol.frame_checks import check_u64
from pydbt.core.protocol.layout import Layout
from pydbt.core.protocol.stream_times import check_offset
from pydbt.core.units import Buffer

COMPLETED = Layout(after="Q", clock_offset_ns="q", count="I", reserved="I")
COMPLETED_DTYPE = np.dtype(
    [
        ("number", "<u8"),
        ("sequence", "<u8"),
        ("whole_from", "<u8"),
        ("submitted_ns", "<u8"),
        ("committed_ns", "<u8"),
        ("fast", "<u4"),
        ("file_system", "u1"),
        ("device", "u1"),
        ("reserved", "<u2"),
    ]
)
"""The bytes of a row (docs/reference/format.md), with the names of the format."""
MAX_COMPLETED = 4_096
MAX_COMPLETED_BYTES = COMPLETED.size + MAX_COMPLETED * COMPLETED_DTYPE.itemsize
CompletedRows = npt.NDArray[np.void]


class LoggedFileSystem(IntEnum):
    """File systems whose log is read, by their number in a row."""

    EXT4 = 1
    XFS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Completed:
    """These have completed by the time that ``after`` was the last update of the stream. ``clock_offset_ns``: as of
    ``StreamTimes``.

    Of each row: ``number`` is the tid of ext4 or the log sequence number of XFS, ``fast`` which fast commit of a running
    transaction, 0 for none. ``sequence`` is the update that ended it, and an image that has all up to ``whole_from`` holds all of
    it, and all transactions before it: more than ``sequence`` where a block was unsettled there. ``submitted_ns``: of the commit,
    by the monotonic clock; ``committed_ns``: by the file system's clock since 1970, 0 where it records none.
    """

    after: int
    clock_offset_ns: int
    rows: CompletedRows

    def __post_init__(self) -> None:
        check_u64("after", self.after)
        check_offset(self.clock_offset_ns)
        rows = self.rows
        if rows.dtype != COMPLETED_DTYPE or rows.ndim != 1 or not 0 < len(rows) <= MAX_COMPLETED:
            raise ValueError(f"a COMPLETED frame has 1 to {MAX_COMPLETED} rows")
        if rows["device"].any() or rows["reserved"].any():
            raise ValueError("a transaction is of another device than 0, or a reserved field is not zero")
        if not np.isin(rows["file_system"], list(LoggedFileSystem)).all():
            raise ValueError("a transaction is of an unknown file system")
        if (rows["whole_from"] < rows["sequence"]).any() or (rows["whole_from"] > self.after).any():
            raise ValueError("a transaction is whole before it ends, or later than it is told")

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Completed)
            and (self.after, self.clock_offset_ns) == (other.after, other.clock_offset_ns)
            and np.array_equal(self.rows, other.rows)
        )

    def to_bytes(self) -> bytes:
        """The body of a COMPLETED frame and of a COMPLETED record."""
        return COMPLETED.pack(self.after, self.clock_offset_ns, len(self.rows), 0) + self.rows.tobytes()

    @classmethod
    def from_bytes(cls, body: Buffer) -> Completed:
        """Raises ValueError, or struct.error, for what is none."""
        after, offset_ns, count, reserved = COMPLETED.unpack_from(body)
        rows = np.frombuffer(body, COMPLETED_DTYPE, offset=COMPLETED.size)
        if len(rows) != count or reserved:
            raise ValueError("a COMPLETED frame has another number of rows, or a reserved field that is not zero")
        return cls(after, offset_ns, rows)
