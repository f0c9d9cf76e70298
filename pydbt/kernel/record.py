"""Records, slots and counters as numpy types: bpf/record.h in Python. tests/kernel compares the two."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from pydbt.core.tracking.capture_record import RECORD

RECORD_BYTES = 64
RING_HEADER_BYTES = 8  # of the kernel's ring buffer, before each slot

SLOT_PREFIX_BYTES = 16

GROUP_BLOCKS = 32768
GROUP_WORDS = GROUP_BLOCKS // 64
WORD_BITS = 64
BUFFER_ENDS = 5


class Program(IntEnum):
    """The programs, by their place in the per-CPU counters."""

    SUBMIT = 0
    REQUEST_COMPLETE = 1
    BIO_COMPLETE = 2
    MARK = 3
    UNDERSTUDY = 4
    WITNESS = 5


#: One record as it lies in the header ring and as ``Capture.drain()`` returns it: struct pydbt_record. The core's RECORD is
#: the same without the position.
RING_RECORD = np.dtype([("position", "<u8"), *RECORD.descr])

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
            "watch",
            "page_offset_base",
            "vmemmap_base",
            "buffer_end_io",
            "apart",
            "producer",
            "overflows",
            "consumer",
            "skipped",
            "waiting",
        ],
        "formats": ["<u4"] * 4 + ["<u8"] * 2 + [("<u8", BUFFER_ENDS)] + ["<u8"] * 6,
        "offsets": [0, 4, 8, 12, 16, 24, 32, 72, 128, 256, 384, 392, 400],
        "itemsize": 408,
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
    [(name, "<u8") for name in ("answer", "task", "reads", "page", "offset", "failed", "process")]
    + [("bytes", "u1", (64,))]
)
