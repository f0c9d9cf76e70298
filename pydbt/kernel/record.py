"""Records and slots as numpy sees them: bpf/record.h in Python, checked against it by tests/kernel."""

from __future__ import annotations

from enum import IntEnum, IntFlag

import numpy as np

RECORD_BYTES = 56
RING_HEADER_BYTES = 8
STRIDE_BYTES = RING_HEADER_BYTES + RECORD_BYTES

SLOT_PREFIX_BYTES = 16
SLOT_ROOM_BYTES = (4096, 16384, 65536, 262144)

GROUP_BLOCKS = 32768
GROUP_WORDS = GROUP_BLOCKS // 64
WORD_BITS = 64


class Kind(IntEnum):
    SUBMIT = 1
    COMPLETE = 2


class Flag(IntFlag):
    """What a record says besides its range; see bpf/record.h for each."""

    FUA = 1
    PREFLUSH = 2
    NO_PAYLOAD = 4
    ERROR = 8
    UNSTABLE = 16
    BIO_BASED = 32
    NO_DATA_OP = 64
    META = 128
    CLIPPED = 256


class Program(IntEnum):
    """The programs, by their place in the per-CPU counters."""

    SUBMIT = 0
    REQUEST_COMPLETE = 1
    BIO_COMPLETE = 2


_FIELDS = (
    ("sector", "<u8"),
    ("data", "<u8"),
    ("cookie", "<u8"),
    ("time_ns", "<u8"),
    ("sectors", "<u4"),
    ("pieces", "<u4"),
    ("kind", "u1"),
    ("op", "u1"),
    ("flags", "<u2"),
    ("cpu", "<u4"),
    ("ordinal", "<u8"),
)


def _spaced(fields: tuple[tuple[str, str], ...], first_offset: int, stride: int) -> np.dtype:
    offsets, offset = [], first_offset
    for _, form in fields:
        offsets.append(offset)
        offset += np.dtype(form).itemsize
    names, forms = zip(*fields, strict=True)
    return np.dtype({"names": names, "formats": forms, "offsets": offsets, "itemsize": stride})


#: One record as ``Capture.drain()`` returns it: struct pydbt_record behind the ring's own 8-byte header.
RECORD = _spaced(_FIELDS, RING_HEADER_BYTES, STRIDE_BYTES)

#: The ring's header in front of every record: length with its two flag bits, and a page number.
RING_HEADER = np.dtype([("length", "<u4"), ("page", "<u4")])
BUSY = 1 << 31
DISCARDED = 1 << 30
LENGTH_MASK = DISCARDED - 1

#: The prefix of a data slot: struct pydbt_slot.
SLOT = np.dtype([("previous", "<u8"), ("length", "<u4"), ("size", "<u4")])

#: struct pydbt_config, which the controller may change while the programs run.
CONFIG = np.dtype(
    [
        ("active", "<u4"),
        ("payload", "<u4"),
        ("records", "<u4"),
        ("reserved", "<u4"),
        ("page_offset_base", "<u8"),
        ("vmemmap_base", "<u8"),
        ("buffer_end_io", "<u8"),
    ]
)

#: struct pydbt_counters, one per program and CPU.
COUNTERS = np.dtype(
    [
        (name, "<u8")
        for name in (
            "ordinal",
            "sectors",
            "discard_sectors",
            "lost",
            "no_payload",
            "unstable",
            "unknown_ops",
            "passthrough",
        )
    ]
)

#: struct pydbt_probe, for the loader's self-test.
PROBE = np.dtype(
    [(name, "<u8") for name in ("answer", "task", "reads", "page", "offset", "failed")] + [("bytes", "u1", (64,))]
)
