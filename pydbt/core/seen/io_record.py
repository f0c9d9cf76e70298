"""One I/O of a device as the programs in the kernel record it: struct pydbt_io_record of bpf/block_io.bpf.c."""

from __future__ import annotations

import numpy as np

IO_RECORD = np.dtype(
    [
        ("time_ns", "<u8"),  # of the completion, CLOCK_MONOTONIC
        ("sector", "<u8"),  # from the start of the device
        ("queue_ns", "<u8"),
        ("device_ns", "<u8"),
        ("total_ns", "<u8"),
        ("inode", "<u8"),  # 0: of no file that is known
        ("bytes", "<u4"),
        ("process", "<u4"),
        ("thread", "<u4"),
        ("generation", "<u4"),  # of the inode
        ("file_system", "<u4"),  # its device number, as the kernel has it: 20 bits of minor
        ("flags", "<u2"),
        ("operation", "u1"),
        ("unused", "u1"),
        ("name", "S16"),  # of the thread
    ]
)
