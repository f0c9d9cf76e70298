"""On what kind of file system an open file of any process lies, found without a question to that file system.

``/proc/PID/fdinfo`` names the file's mount, and ``/proc/PID/mountinfo`` its kind (proc_pid_fdinfo(5), proc_pid_mountinfo(5)).
"""

from __future__ import annotations

import os
from pathlib import Path

from pydbt.device.freezer import mount_id_in

# Their servers may be gone, and every question to them then waits for ever.
_REMOTE = (
    b"nfs",
    b"cifs",
    b"smb",
    b"ceph",
    b"afs",
    b"9p",
    b"fuse",
    b"gluster",
    b"lustre",
    b"coda",
    b"orangefs",
    b"virtiofs",
)


class MountKinds:
    """Remembers the mounts of each mount namespace that was asked for."""

    def __init__(self) -> None:
        self._local: dict[str, set[int]] = {}

    def may_hold_devices(self, descriptor: str) -> bool:
        """Whether an open file (``/proc/PID/fd/N``) may be a device node whose status can be asked for. OSError.

        False on a file system of a network, where no device node can be opened (``nodev``), and for an unknown mount.
        """
        process = descriptor.rsplit("/", 2)[0]
        namespace = os.readlink(f"{process}/ns/mnt")
        if namespace not in self._local:
            lines = Path(process, "mountinfo").read_bytes().split(b"\n")
            self._local[namespace] = {int(line.split(b" ", 1)[0]) for line in lines if line and _is_local(line)}
        return mount_id_in(Path(descriptor.replace("/fd/", "/fdinfo/")).read_bytes()) in self._local[namespace]


def _is_local(line: bytes) -> bool:
    head, _, tail = line.partition(b" - ")
    options = head.split(b" ", 6)[5:6]
    return not tail.startswith(_REMOTE) and b"nodev" not in b"".join(options).split(b",")
