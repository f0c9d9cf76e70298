"""A block device that one process holds exclusively, and whose hold another process of root takes over.

The kernel gives the claim of an exclusive open to the open file (``blkdev_open`` in block/fops.c), and it ends with the last
descriptor of that. So a copy of the descriptor, sent over a socket (``SCM_RIGHTS``, unix(7)), is the same claim: at no moment
does nobody hold the device. The descriptor is read-only: who took it over opens the device once more to write.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from pathlib import Path

from pydbt.core.errors import BusyError
from pydbt.posix.files import try_lock

HOLDS = Path("/run/pydbt")
_PREFIX, _SUFFIX, _LOCK_SUFFIX = "hold-", ".sock", ".lock"
_ANSWER_S = 2.0
_MESSAGE_BYTES = 64
_HERE, _OTHER = b"here", b"other"


def take_held(number: int, folder: Path = HOLDS) -> int | None:
    """A descriptor by which this process holds the device of this number (``st_rdev``) too; None when no process hands it on."""
    return _ask("take", number, folder)[1]


def end_hold(number: int, folder: Path = HOLDS) -> bool:
    """Ask the process that holds the device to let go of it and to end; whether there was one. It has let go at the return."""
    found, descriptor = _ask("end", number, folder)
    if descriptor is not None:
        os.close(descriptor)
    return found


def _ask(word: str, number: int, folder: Path) -> tuple[bool, int | None]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return False, None
    for name in names:
        if not (name.startswith(_PREFIX) and name.endswith(_SUFFIX)):
            continue
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as wire:
            wire.settimeout(_ANSWER_S)
            wire.connect(os.fspath(folder / name))
            wire.send(f"{word} {number}".encode())
            answer, descriptors, _, _ = socket.recv_fds(wire, _MESSAGE_BYTES, 1)
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
            if answer == _HERE:
                return True, descriptors[0] if descriptors else None
    return False, None


class HoldServer:
    """Hands on what is held. For one thread."""

    def __init__(self, name: str, folder: Path = HOLDS) -> None:
        """OSError when the socket cannot be made; one that a killed process left is replaced.

        BusyError when another process has this name: its socket, by which the target is taken over from it, is not touched.
        """
        self._path = folder / f"{_PREFIX}{name}{_SUFFIX}"
        self._lock_path = self._path.with_suffix(_LOCK_SUFFIX)
        self._lock = _locked(self._lock_path, name)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        before = os.umask(0o177)
        try:
            self._path.unlink(missing_ok=True)
            self._socket.bind(os.fspath(self._path))
            self._own = os.stat(self._path).st_ino
            self._socket.listen(8)
        except OSError:
            self._socket.close()
            self._unlock()
            raise
        finally:
            os.umask(before)
        self._askers: list[socket.socket] = []

    def serve(self, held: int | None, seconds: float, wake: int) -> bool:
        """Answer for this long, or until ``wake`` can be read. ``held``: the descriptor, if any. True: asked to end.

        Then the asker waits for its answer until ``close``, which comes when the descriptor is closed.
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            ready, _, _ = select.select([self._socket.fileno(), wake], [], [], left)
            if wake in ready:
                return False
            if ready and self._answer(held):
                return True
        return False

    def close(self) -> None:
        """Idempotent."""
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                if os.stat(self._path).st_ino == self._own:
                    self._path.unlink()
            self._unlock()
        self._socket.close()
        for asker in self._askers:
            with contextlib.suppress(OSError):
                asker.send(_HERE)
            asker.close()
        self._askers.clear()

    def _unlock(self) -> None:
        """The file goes first: who has opened it before finds that it is no more the one of this name."""
        with contextlib.suppress(OSError):
            self._lock_path.unlink()
        os.close(self._lock)
        self._lock = -1

    def _answer(self, held: int | None) -> bool:
        with contextlib.suppress(OSError):
            asker, _ = self._socket.accept()
            asker.settimeout(_ANSWER_S)
            word, _, text = asker.recv(_MESSAGE_BYTES).decode(errors="replace").partition(" ")
            if held is None or text != str(os.fstat(held).st_rdev):
                asker.send(_OTHER)
            elif word == "take":
                socket.send_fds(asker, [_HERE], [held])
            elif word == "end":
                self._askers.append(asker)
                return True
            asker.close()
        return False


def _locked(path: Path, name: str) -> int:
    """An open file that no other process has locked. BusyError when one has, OSError."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if not try_lock(descriptor):
            os.close(descriptor)
            raise BusyError(f"another 'controller hold' runs for {name}: the target is held, or will be, by that one")
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)  # its owner has just ended
