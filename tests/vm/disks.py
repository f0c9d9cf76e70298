"""Data disks of the machines: plain ones, and ones with a volatile write cache that a power cut empties.

A disk may keep written data in memory until it is told to flush. When the power fails, any of that may be on the
platter and any may not, sector by sector; what was flushed, or written with FUA, is there. The host's page cache
forgets nothing when QEMU is killed, so that a plain image file would be kinder than any disk. A ``VolatileDisk``
is therefore served to QEMU over NBD by a thread of this process, which knows what is not flushed yet.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import socket
import struct
import threading
from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

SECTOR_BYTES = 512
CACHE_BYTES = 32 << 20  # a disk's cache is finite: older data is on the platter

# https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
_NBDMAGIC, _IHAVEOPT, _REPLY = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
_SIMPLE_REPLY = 0x67446698
_REP_ACK, _REP_INFO, _REP_UNSUPPORTED = 1, 3, 0x80000001
_FUA = 1
_TRANSMISSION_FLAGS = 1 | 4 | 8 | 32 | 64  # HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES


class _Option(IntEnum):
    ABORT = 2
    INFO = 6
    GO = 7


class _Command(IntEnum):
    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3
    TRIM = 4
    WRITE_ZEROES = 6


class PlainDisk:
    """An image file. Whatever the guest was told to be written survives."""

    def __init__(self, folder: Path, name: str, size_bytes: int) -> None:
        self.name, self.size_bytes = name, size_bytes
        self.path = folder / f"{name}.img"
        with self.path.open("ab") as file:
            file.truncate(size_bytes)

    def arguments(self) -> list[str]:
        """QEMU's, for a block node of the disk's name."""
        file = f"driver=file,filename={self.path},cache.no-flush=on,discard=unmap"
        return ["-blockdev", f"{file},node-name={self.name}-file",
                "-blockdev", f"driver=raw,file={self.name}-file,node-name={self.name},discard=unmap"]  # fmt: skip

    @property
    def unflushed_bytes(self) -> int:
        return 0

    def cut_power(self, chance: random.Random) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass(slots=True)
class _Pending:
    """A write that is not flushed: where, what, and what was there before. ``sure`` ones are on the platter nevertheless."""

    offset: int
    length: int
    new: bytes | None  # None: zeroes
    old: bytes | None
    sure: bool


class VolatileDisk:
    """A disk with a write cache. ``cut_power`` keeps what was flushed, and of the rest what chance says."""

    def __init__(self, folder: Path, sockets: Path, name: str, size_bytes: int) -> None:
        self.name, self.size_bytes = name, size_bytes
        self.path = folder / f"{name}.img"
        self._socket = sockets / f"{name}.nbd"
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._file, size_bytes)
        self._pending: deque[_Pending] = deque()
        self._pending_bytes = 0
        self.lost_bytes = 0  # by all power cuts
        self._lock = threading.Lock()
        self._fails_at: int | None = None
        self._failed = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._socket))
        self._listener.listen()
        self._server = threading.Thread(target=self._serve, daemon=True)
        self._server.start()

    def arguments(self) -> list[str]:
        address = f"server.type=unix,server.path={self._socket}"
        return ["-blockdev", f"driver=nbd,{address},export={self.name},node-name={self.name},discard=unmap"]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._server.join(10)
        os.close(self._file)
        self._socket.unlink(missing_ok=True)

    @property
    def unflushed_bytes(self) -> int:
        """What a power cut could take now."""
        return sum(write.length for write in list(self._pending) if not write.sure)

    def fail_at(self, unflushed_bytes: int, timeout_s: float) -> bool:
        """Take nothing more, not even a flush, from the moment when a power cut could take this much; whether that came."""
        with self._lock:
            self._fails_at = unflushed_bytes
        return self._failed.wait(timeout_s)

    def cut_power(self, chance: random.Random) -> None:
        """Call when nobody is connected any more. Unflushed writes are there, not there, or torn between sectors."""
        with self._lock:
            for write in reversed(self._pending):
                if write.old is not None:
                    os.pwrite(self._file, write.old, write.offset)
            kept = chance.random()  # from nearly nothing to nearly everything
            for write in self._pending:
                if write.sure or chance.random() < kept:
                    self._put(write.offset, write.length, write.new)
                elif write.new is not None and chance.random() < 0.2:
                    part = chance.randrange(write.length // SECTOR_BYTES + 1) * SECTOR_BYTES
                    self._put(write.offset, part, write.new[:part])
                    self.lost_bytes += write.length - part
                else:
                    self.lost_bytes += write.length
            self._forget()
            self._fails_at = None
            self._failed.clear()

    # --- the cache ----------------------------------------------------------------------------------------
    def _write(self, offset: int, length: int, new: bytes | None, sure: bool) -> None:
        with self._lock:
            old = None if sure else os.pread(self._file, length, offset)
            self._pending.append(_Pending(offset, length, new, old, sure))
            self._pending_bytes += length if new is not None or old is not None else 0
            self._put(offset, length, new)
            if self._fails_at is not None and self.unflushed_bytes >= self._fails_at:
                self._failed.set()
            # The oldest goes to the platter. It stays the base of what is younger: their ``old`` has it.
            while self._pending_bytes > CACHE_BYTES:
                first = self._pending.popleft()
                self._pending_bytes -= first.length if first.new is not None or first.old is not None else 0

    def _put(self, offset: int, length: int, new: bytes | None) -> None:
        if new is None:
            _punch(self._file, offset, length)
        else:
            os.pwrite(self._file, new, offset)

    def _forget(self) -> None:
        self._pending.clear()
        self._pending_bytes = 0

    # --- NBD ----------------------------------------------------------------------------------------------
    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError, EOFError):
                if self._negotiate(connection):
                    self._transmit(connection)

    def _negotiate(self, peer: socket.socket) -> bool:
        peer.sendall(struct.pack(">QQH", _NBDMAGIC, _IHAVEOPT, 1))  # fixed newstyle
        _receive(peer, 4)
        while True:
            _, option, length = struct.unpack(">QII", _receive(peer, 16))
            _receive(peer, length)

            def reply(kind: int, data: bytes = b"", option: int = option) -> None:
                peer.sendall(struct.pack(">QIII", _REPLY, option, kind, len(data)) + data)

            match option:
                case _Option.INFO | _Option.GO:
                    reply(_REP_INFO, struct.pack(">HQH", 0, self.size_bytes, _TRANSMISSION_FLAGS))
                    reply(_REP_INFO, struct.pack(">HIII", 3, SECTOR_BYTES, 4096, 32 << 20))
                    reply(_REP_ACK)
                    if option == _Option.GO:
                        return True
                case _Option.ABORT:
                    reply(_REP_ACK)
                    return False
                case _:
                    reply(_REP_UNSUPPORTED)

    def _transmit(self, peer: socket.socket) -> None:
        while True:
            _, flags, kind, handle, offset, length = struct.unpack(">IHHQQI", _receive(peer, 28))
            answer = b""
            if self._failed.is_set():
                while peer.recv(1 << 20):  # nothing is done or answered any more, until the machine is gone
                    pass
                return
            match kind:
                case _Command.READ:
                    answer = os.pread(self._file, length, offset)
                case _Command.WRITE:
                    self._write(offset, length, _receive(peer, length), bool(flags & _FUA))
                case _Command.FLUSH:
                    with self._lock:
                        self._forget()
                case _Command.TRIM | _Command.WRITE_ZEROES:  # of any size, so never held back
                    self._write(offset, length, None, sure=True)
                case _:
                    return
            if not self._failed.is_set():
                peer.sendall(struct.pack(">IIQ", _SIMPLE_REPLY, 0, handle) + answer)


def _receive(peer: socket.socket, length: int) -> bytes:
    data = bytearray(length)
    view = memoryview(data)
    while view:
        got = peer.recv_into(view)
        if not got:
            raise EOFError
        view = view[got:]
    return bytes(data)


def _punch(descriptor: int, offset: int, length: int) -> None:
    keep_size, punch_hole = 1, 2  # include/uapi/linux/falloc.h
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(descriptor, keep_size | punch_hole, ctypes.c_int64(offset), ctypes.c_int64(length)):
        raise OSError(ctypes.get_errno(), "fallocate")
