"""The names by which block I/O is told: of operations, of the parts of a latency, and of when it is watched."""

from __future__ import annotations

OPERATIONS = ("read", "write", "flush", "discard")
"""As /sys/block/DISK/stat groups them: writing zeroes counts as a write."""
PARTS = ("queue", "device", "total")
"""Of a latency: until the driver has it, from then on, and both."""
BLOCK_IO_WATCHES = ("off", "auto", "always")
"""Of the option ``--block-io``: ``auto`` is while somebody looks."""
