"""Freezes the file systems of a source for a moment, by a helper process that thaws them even when this one dies."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pydbt.core.errors import DeviceError
from pydbt.device.freezer import FITHAW, open_point
from pydbt.device.mounts import Mount, every_mount
from pydbt.posix import libc
from pydbt.posix.ownership import read_own

# The helper answers within this time behind the limit of a freeze, or the kernel holds it.
_ANSWER_S = 60.0
# It ends within this time, unless the kernel holds it in a freeze that does not end.
_END_S = 5.0
# A killed helper has ended within this time; a living one thaws by itself.
_DIE_S = 60.0


class CannotFreeze(DeviceError):
    """The file system does not support freezing."""


class CannotReach(DeviceError):
    """The mount point does not lead to the file system."""


def sync_file_system(mount: Mount) -> None:
    """Write out the dirty data of a file system, and wait for it (syncfs(2)). CannotReach and DeviceError give the reason."""
    try:
        descriptor = open_point(mount.point, mount.mount_id)
    except OSError as error:
        raise CannotReach(f"the file system at {mount.point} cannot be reached: {error.strerror}") from None
    try:
        libc.syncfs(descriptor)
    except OSError as error:
        raise DeviceError(f"the file system at {mount.point} could not be written out: {error.strerror}") from None
    finally:
        os.close(descriptor)


class FileSystemFreezer:
    """The helper process (``pydbt.device.freezer``), which is started at its first use. For one thread at a time.

    While file systems are frozen, the file ``marker`` names them. When both processes are killed at once, the next start
    thaws them by ``thaw_leftover``.
    """

    def __init__(self, marker: Path) -> None:
        self._marker = marker
        self._process: subprocess.Popen[str] | None = None
        self._points: list[tuple[str, int]] = []

    @property
    def helper_pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the helper, so that no freeze includes the time of its start."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(Path(__file__).with_name("freezer.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # Nothing may hold it up while file systems are frozen, and a terminal that is stopped would.
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )

    def freeze(self, mounts: list[Mount], limit_s: float) -> None:
        """Freeze all of them for at most ``limit_s``. After an error none is frozen.

        CannotFreeze: a file system does not support freezing. DeviceError: it failed this time.
        """
        self.start()
        self._points = [(mount.point, mount.mount_id) for mount in mounts]
        try:
            self._marker.write_text(json.dumps({"helper": self.helper_pid, "points": self._points}))
        except OSError as error:
            raise DeviceError(f"{self._marker} cannot be written: {error.strerror}") from None
        answer = self._ask({"freeze": self._points, "limit_s": limit_s}, limit_s + _ANSWER_S)
        if answer.get("frozen"):
            return
        self._forget()
        places = ", ".join(mount.point for mount in mounts)
        if answer["unsupported"]:
            raise CannotFreeze(
                f"{' and '.join(sorted({mount.fs_type for mount in mounts}))} at {places} cannot be frozen"
            )
        if answer["busy"]:
            raise DeviceError(f"{places} is frozen already, by another program")
        raise DeviceError(f"{places} could not be frozen: {answer['error']}")

    def thaw(self) -> tuple[float, bool]:
        """Returns (time frozen in ms, whether the limit had ended it). DeviceError: the helper had died; all is thawed."""
        answer = self._ask({"thaw": True}, _ANSWER_S)
        self._forget()
        return float(answer["held_ms"]), bool(answer["early"])

    def close(self) -> None:
        """Thaw, and end the helper."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
            self._forget()
        process.stdout.close()

    def _ask(self, command: dict[str, object], patience_s: float) -> dict[str, Any]:
        """The helper's answer. When it has died, thaws its file systems and raises DeviceError.

        DeviceError also when it does not answer. Its input ends then, so that it thaws by itself as soon as it can; to kill it
        would leave frozen what the kernel is freezing just now. What was to be thawed is thawed here.
        """
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(command) + "\n")
            process.stdin.flush()
            poll = select.poll()
            poll.register(process.stdout, select.POLLIN)
            if not poll.poll(patience_s * 1000):
                points = self._points
                self.close()
                if "thaw" in command:
                    thaw_points(points)
                raise DeviceError(f"the process that freezes file systems gave no answer within {patience_s:g} s")
            line = process.stdout.readline()
        except OSError:
            line = ""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        # It was killed, by a person or because memory ran out. The file systems that it froze are thawed here.
        thaw_points(self._points)
        self.close()
        raise DeviceError("the process that freezes file systems was killed; they were thawed")

    def _forget(self) -> None:
        self._points = []
        self._marker.unlink(missing_ok=True)


def thaw_points(points: list[tuple[str, int]]) -> bool:
    """Thaw these mount points. Returns whether any was frozen."""
    any_was = False
    # The process through which a point in another namespace was reached may have ended: another one leads there too.
    ids = {str(mount_id).encode() for _, mount_id in points}
    now = {mount.mount_id: mount.point for mount in every_mount(lambda line: line.split(b" ", 1)[0] in ids)}
    for point, mount_id in points:
        with contextlib.suppress(OSError):
            descriptor = open_point(now.get(mount_id, point), mount_id)
            try:
                fcntl.ioctl(descriptor, FITHAW, 0)
                any_was = True
            finally:
                os.close(descriptor)
    return any_was


def _is_helper(pid: int) -> bool:
    """Whether a process is a helper that has not ended yet."""
    try:
        return b"freezer.py" in Path(f"/proc/{pid}/cmdline").read_bytes() and _state_of(pid) != "Z"
    except OSError:
        return False


def _state_of(pid: int) -> str:
    """Its name, which stands in parentheses and may have any byte, comes before the state (proc_pid_stat(5))."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0].decode()


def thaw_leftover(marker: Path) -> bool:
    """Thaw the file systems of a run that was killed together with its helper. Returns whether any was frozen."""
    try:
        kept = json.loads(read_own(marker))
        helper, points = int(kept["helper"]), [(str(point), int(mount_id)) for point, mount_id in kept["points"]]
    except (OSError, ValueError, TypeError, KeyError):
        return False
    # A helper that was killed while it froze ends only when the freeze is done, and a freeze under way cannot be thawed.
    until = time.monotonic() + _DIE_S
    while _is_helper(helper) and time.monotonic() < until:
        time.sleep(0.02)
    any_was = thaw_points(points)
    marker.unlink(missing_ok=True)
    return any_was
