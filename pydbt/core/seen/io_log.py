"""Records of I/Os as fio's log of version 2, which ``fio --read_iolog`` plays again (fio(1), "Trace file format v2").

Its order is that of submission, and between two I/Os it waits as long as there was between them: fio takes what is shorter than
100 microseconds as nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pydbt.core.seen.io_names import OPERATIONS
from pydbt.core.seen.latency import UNKNOWN_NS
from pydbt.core.units import SECTOR_BYTES

_ACTIONS = {"read": "read", "write": "write", "flush": "sync", "discard": "trim"}
_LEAST_WAIT_US = 100

#: What is kept of a record until it is written: 24 bytes.
LOG_ENTRY = np.dtype(
    [("began_ns", "<u8"), ("sector", "<u8"), ("bytes", "<u4"), ("operation", "u1"), ("unused", "u1", 3)]
)


def log_entries(records: np.ndarray) -> np.ndarray:
    """Of dtype LOG_ENTRY. The beginning of one whose latency is unknown is taken for its end."""
    entries = np.zeros(len(records), LOG_ENTRY)
    known = records["total_ns"] != np.uint64(UNKNOWN_NS)
    took = np.where(
        known, records["total_ns"], np.where(records["device_ns"] != np.uint64(UNKNOWN_NS), records["device_ns"], 0)
    )
    entries["began_ns"] = records["time_ns"] - took.astype(np.uint64)
    for name in ("sector", "bytes", "operation"):
        entries[name] = records[name]
    return entries


def fio_log(entries: np.ndarray, device: str) -> Iterator[str]:
    """The lines of the log, each with its end. ``device``: the name that fio opens, without white space."""
    yield "fio version 2 iolog\n"
    yield f"{device} add\n"
    yield f"{device} open\n"
    before_us = None
    for entry in entries[np.argsort(entries["began_ns"], kind="stable")]:
        now_us = int(entry["began_ns"]) // 1000
        if before_us is not None and now_us - before_us >= _LEAST_WAIT_US:
            yield f"{device} wait {now_us - before_us} 0\n"
            before_us = now_us
        elif before_us is None:
            before_us = now_us
        offset, length = int(entry["sector"]) * SECTOR_BYTES, int(entry["bytes"])
        yield f"{device} {_ACTIONS[OPERATIONS[entry['operation']]]} {offset} {length}\n"
    yield f"{device} close\n"
