"""The operations of an XFS record, and the words for what they tell.

Sources: fs/xfs/libxfs/xfs_log_format.h (struct xlog_op_header), fs/xfs/xfs_log_recover.c (xlog_recover_process_data).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pydbt.core.units import Buffer

START, COMMIT, CONTINUED, UNMOUNT = 0x01, 0x02, 0x08, 0x20
TRANSACTION_MAGIC = 0x5452414E
TRANSACTION_HEADER_BYTES = 16  # struct xfs_trans_header
OPERATION_BYTES, OPERATION_WORDS = 12, 3
OPERATION_MARK = 0x69
"""XFS_TRANSACTION, the only client of the log, in each operation."""
_OPERATION = struct.Struct(">IIBB2x")


@dataclass(slots=True)
class Operations:
    """Of one record, in their order: the number of the checkpoint, place and length of the region in the data, and the flags.

    ``bounds``: where each stretch begins, and the end. A stretch is one operation with flags, or neighbours of one checkpoint
    without any. ``cut_off``: the next operation reaches beyond the record.
    """

    numbers: list[int]
    places: list[int]
    lengths: list[int]
    flags: list[int]
    bounds: list[int]
    cut_off: bool = False


def operations_of(data: Buffer, count: int) -> Operations:
    """The first operations in the data of a record, ``count`` of them at most."""
    found = Operations([], [], [], [], [])
    numbers, places, lengths, all_flags = found.numbers, found.places, found.lengths, found.flags
    unpack, size, position = _OPERATION.unpack_from, len(data), 0
    number_before, flags_before = -1, 1
    for index in range(min(count, size // OPERATION_BYTES)):
        place = position + OPERATION_BYTES
        if place > size:
            found.cut_off = True
            break
        number, length, _, flags = unpack(data, position)
        position = place + length
        if position > size:
            found.cut_off = True
            break
        if flags or flags_before or number != number_before:
            found.bounds.append(index)
            number_before, flags_before = number, flags
        numbers.append(number)
        places.append(place)
        lengths.append(length)
        all_flags.append(flags)
    found.bounds.append(len(numbers))
    return found
