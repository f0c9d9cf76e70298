"""Disks that hand their bios on as they are: the kernel shows their submissions, and no completion.

The head of NVMe's native multipath gives a bio to the hidden disk of one path (nvme_ns_head_submit_bio). There it becomes a
request, whose end clears BIO_TRACE_COMPLETION (blk_update_request): ``block_bio_complete`` never comes for the head.
"""

from __future__ import annotations

import re
from pathlib import Path

from pydbt.device.sysfs import BlockDevice

_BLOCK = Path("/sys/block")
_NAMESPACE = re.compile(r"nvme(\d+)n(\d+)")


def unseen_completions(device: BlockDevice) -> str:
    """Why no completion of a device's writes is ever seen, as a sentence; empty for every other device."""
    disk = device.disk()
    named = _NAMESPACE.fullmatch(disk.name)
    if named is None or not disk.bio_based:
        return ""
    paths = sorted(path.name for path in _BLOCK.glob(f"nvme{named[1]}c*n{named[2]}"))
    if not paths:
        return ""
    return (
        f"{device.path} is the head of NVMe multipath (over {', '.join(paths)}), of whose writes the kernel shows no completion: "
        "replicate an LVM volume on it, or start the kernel with nvme_core.multipath=N if it has one path"
    )
