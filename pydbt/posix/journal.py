"""Entries with fields for systemd's journal, by its native protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

JOURNAL_SOCKET = "/run/systemd/journal/socket"
_ENTRY_BYTES_MAX = 128 * 1024
"""A datagram that is larger would have to be handed over as a file; no event is."""


class Journal:
    """Each entry is one datagram. What the journal does not take at once is dropped: nobody waits for it."""

    def __init__(self, place: str = JOURNAL_SOCKET) -> None:
        self._place = place
        self._socket: socket.socket | None = None

    @classmethod
    def of_this_service(cls, descriptor: int = 2) -> Journal | None:
        """None where stderr does not go to the journal (systemd.exec(5), JOURNAL_STREAM)."""
        try:
            status = os.fstat(descriptor)
        except OSError:
            return None
        return cls() if os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}" else None

    def send(self, fields: Mapping[str, str]) -> bool:
        """Write an entry; False when it was dropped."""
        entry = encoded(fields)
        if len(entry) > _ENTRY_BYTES_MAX:
            return False
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.setblocking(False)
            self._socket.sendto(entry, self._place)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Harmless when nothing was sent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def encoded(fields: Mapping[str, str]) -> bytes:
    """An entry: ``NAME=value`` lines, and for a value of several lines its length in 8 bytes, little-endian."""
    parts = []
    for name, value in fields.items():
        data = value.encode(errors="backslashreplace")
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)
