"""Records of I/Os, made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from pydbt.core.seen.io_record import IO_RECORD

READ, WRITE, FLUSH, DISCARD = range(4)
LOOP0 = 7 << 20


def record(**values: Any) -> np.ndarray:
    """One: 4 KiB written by fio, queued for 1 and on the device for 9 microseconds."""
    usual = {
        "time_ns": 20_000, "sector": 8, "queue_ns": 1_000, "device_ns": 9_000, "total_ns": 10_000, "bytes": 4096,
        "process": 100, "thread": 101, "operation": WRITE, "name": b"fio",
    }  # fmt: skip
    made = np.zeros(1, IO_RECORD)
    for name, value in (usual | values).items():
        made[0][name] = value
    return made


def records(*each: np.ndarray) -> np.ndarray:
    return np.concatenate(each)
