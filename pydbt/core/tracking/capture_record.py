"""The capture record as the brains see it: one per write request submitted, one per completion, in kernel order.

The layout is defined once in ``bpf/record.h``; tests/kernel/test_machine.py checks that the two agree.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

import numpy as np
import numpy.typing as npt

RECORD = np.dtype(
    [
        ("sector", "<u8"),  # first sector, relative to the start of the volume
        ("data", "<u8"),  # where the payload ends; opaque to the core, 0: none
        ("cookie", "<u8"),  # identity of a request on a bio-based device, else 0
        ("time_ns", "<u8"),
        ("sectors", "<u4"),
        ("pieces", "<u4"),
        ("kind", "u1"),
        ("op", "u1"),
        ("flags", "<u2"),
        ("cpu", "<u4"),
        ("ordinal", "<u8"),
    ]
)


Records = npt.NDArray[np.void]
"""An array of RECORD."""


class RecordKind(IntEnum):
    """The event of a record. File-system transactions take numbers from 3 on."""

    SUBMIT = 1
    COMPLETE = 2


class RecordFlag(IntFlag):
    """Marks on a record; see ``bpf/record.h``."""

    FUA = 1
    PREFLUSH = 2
    NO_PAYLOAD = 4
    ERROR = 8
    UNSTABLE = 16
    BIO_BASED = 32
    NO_DATA_OP = 64
    META = 128
    CLIPPED = 256


class Operation(IntEnum):
    """Writing operations of the block layer (``enum req_op``, include/linux/blk_types.h)."""

    WRITE = 1
    DISCARD = 3
    SECURE_ERASE = 5
    WRITE_ZEROES = 9


def empty_records() -> Records:
    return np.empty(0, dtype=RECORD)
