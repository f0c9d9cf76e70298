"""The process that freezes file systems, and thaws them in every case: a program of its own, run by ``freeze``.

One JSON object per line, in and out. ``{"freeze": [[point, mount_id], ...], "limit_s": S}`` is answered by ``{"frozen":
true}`` or ``{"error": ..., "unsupported": ...}`` with nothing left frozen; ``{"thaw": true}`` by ``{"held_ms": ...,
"early": ...}``. It thaws by itself after the limit, and when its input ends, because its starter has died then. So it runs
in a session of its own, ignores every signal that it can, and asks the kernel to kill it last when memory runs out. It runs
isolated (``python -I``) and imports the standard library only. FIFREEZE and FITHAW: fs/ioctl.c, ioctl_fsfreeze.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import select
import signal
import stat
import time

FIFREEZE = 0xC0045877
FITHAW = 0xC0045878


class Freezer:
    """The file systems that are frozen now, and the time of the freeze."""

    def __init__(self) -> None:
        self._frozen: list[int] = []
        self._since = self._until = 0.0
        self._held_ms = 0.0
        self._early = False

    def freeze(self, points: list[tuple[str, int]], limit_s: float) -> dict[str, object]:
        """Freeze all of them or none; the first error is reported."""
        self.thaw()
        self._early = False
        opened: list[int] = []
        self._since = time.monotonic()
        self._until = self._since + limit_s
        try:
            for point, mount_id in points:
                opened.append(open_point(point, mount_id))
            for descriptor in opened:
                fcntl.ioctl(descriptor, FIFREEZE, 0)
                self._frozen.append(descriptor)
        except OSError as error:
            self.thaw()
            for descriptor in opened:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
            unsupported = error.errno in (errno.EOPNOTSUPP, errno.ENOTTY)
            return {
                "error": error.strerror or str(error),
                "unsupported": unsupported,
                "busy": error.errno == errno.EBUSY,
            }
        return {"frozen": True}

    def thaw(self) -> None:
        """Thaw in reverse order. Harmless when nothing is frozen."""
        if not self._frozen:
            return
        while self._frozen:
            descriptor = self._frozen.pop()
            with contextlib.suppress(OSError):  # another program thawed it
                fcntl.ioctl(descriptor, FITHAW, 0)
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._held_ms = (time.monotonic() - self._since) * 1000

    def thaw_if_late(self) -> None:
        if self._frozen and time.monotonic() >= self._until:
            self._early = True
            self.thaw()

    def patience_s(self) -> float | None:
        """Seconds until the limit, when there is something to thaw; None when nothing is frozen."""
        return max(0.0, self._until - time.monotonic()) if self._frozen else None

    def thawed(self) -> dict[str, object]:
        """Thaw, and return the answer."""
        self.thaw()
        held_ms, self._held_ms = self._held_ms, 0.0
        return {"held_ms": held_ms, "early": self._early}


def open_point(point: str, mount_id: int) -> int:
    """A mount point, opened. OSError when another mount covers it (device numbers do not show that on btrfs).

    Another user has there, in a mount namespace of his own, what he likes: a pipe, a device, or a link to anything. So what is
    there is looked at before it is opened, and nothing is waited for.
    """
    found = os.open(point, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if mount_id_of_descriptor(found) != mount_id:
            raise OSError(errno.ENODEV, f"{point} is covered by another mount")
        mode = os.fstat(found).st_mode
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            raise OSError(errno.ENODEV, f"{point} is neither a folder nor a regular file")
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(found)


def mount_id_of_descriptor(descriptor: int) -> int | None:
    """The kernel's number of the mount that an open file is on (proc_pid_fdinfo(5))."""
    with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:
        return mount_id_in(file.read())


def mount_id_in(fdinfo: bytes) -> int | None:
    """The number of the mount in the text of a file of ``/proc/PID/fdinfo``."""
    found = re.search(rb"^mnt_id:\s*(\d+)", fdinfo, re.MULTILINE)
    return int(found[1]) if found else None


def serve(freezer: Freezer) -> None:
    """Carry out commands from the standard input until it ends."""
    pending = b""
    while True:
        ready, _, _ = select.select([0], [], [], freezer.patience_s())
        freezer.thaw_if_late()
        if not ready:
            continue
        part = os.read(0, 65536)
        if not part:
            return
        *lines, pending = (pending + part).split(b"\n")
        for line in lines:
            command = json.loads(line)
            if "freeze" in command:
                answer = freezer.freeze(command["freeze"], float(command["limit_s"]))
                freezer.thaw_if_late()  # the freeze itself took too long
            else:
                answer = freezer.thawed()
            try:
                os.write(1, json.dumps(answer).encode() + b"\n")
            except BrokenPipeError:
                return


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1000")
    freezer = Freezer()
    try:
        serve(freezer)
    finally:
        freezer.thaw()


if __name__ == "__main__":
    main()
