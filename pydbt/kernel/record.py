"""Records and slots as numpy sees them: bpf/record.h in Python, checked against it by tests/kernel."""

from __future__ import annotations

from enum import IntEnum, IntFlag

import numpy as np

RECORD_BYTES = 64
RING_HEADER_BYTES = 8  # of the kernel's ring buffer, before each slot

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


#: One record, as it lies in the header ring and as ``Capture.drain()`` returns it: struct pydbt_record.
RECORD = np.dtype([("position", "<u8"), *_FIELDS])

#: The two flag bits in the length before each entry of the kernel's ring buffer.
BUSY = 1 << 31
DISCARDED = 1 << 30
LENGTH_MASK = DISCARDED - 1

#: struct pydbt_config, which the controller may change while the programs run.
CONFIG = np.dtype(
    {
        "names": [
            "active",
            "payload",
            "records",
            "page_offset_base",
            "vmemmap_base",
            "buffer_end_io",
            "producer",
            "overflows",
            "consumer",
            "skipped",
        ],
        "formats": ["<u4"] * 3 + ["<u8"] * 7,
        "offsets": [0, 4, 8, 16, 24, 32, 128, 256, 384, 392],
        "itemsize": 400,
    }
)

#: struct pydbt_counters, one per program and CPU.
COUNTER_NAMES = (
    "ordinal",
    "sectors",
    "discard_sectors",
    "lost",
    "no_payload",
    "unstable",
    "unknown_ops",
    "passthrough",
)
COUNTERS = np.dtype([(name, "<u8") for name in COUNTER_NAMES])

#: struct pydbt_probe, for the loader's self-test.
PROBE = np.dtype(
    [(name, "<u8") for name in ("answer", "task", "reads", "page", "offset", "failed")] + [("bytes", "u1", (64,))]
)
