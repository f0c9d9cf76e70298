"""One TCP connection that carries frames both ways.

Sending and receiving share no state: one thread may send while another receives. Only one thread at a time may
receive. A lock serializes senders.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

from pydbt.core.errors import PeerError, TimedOut
from pydbt.core.protocol.frames import Frame
from pydbt.core.protocol.wire import (
    BULK_KINDS,
    FRAME_HEADER_BYTES,
    MAX_JSON_BYTES,
    check_number,
    decode_body,
    decode_frame_header,
    encode,
)
from pydbt.core.units import Buffer
from pydbt.posix.files import LONGEST_SOCKET_WAIT_S, hand_over

SILENCE_S = 15.0
"""A peer that sends or takes nothing for this long counts as gone. A primary sends a ping every
``HEARTBEAT_S``, one of an earlier version every ``OLD_HEARTBEAT_S``: at least five in this time."""

KEEPALIVE_IDLE_S = 5
KEEPALIVE_INTERVAL_S = 3
KEEPALIVE_PROBES = 3

Allocate = Callable[[int], memoryview]
_NETWORKS = (socket.AF_INET, socket.AF_INET6)


class StreamSocket(Protocol):
    """The part of a connected socket that a framed connection uses: a ``socket.socket``, or a ``TlsSocket`` in its place."""

    @property
    def family(self) -> int: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def setsockopt(self, level: int, name: int, value: int, /) -> None: ...
    def getsockopt(self, level: int, name: int, length_bytes: int, /) -> bytes: ...
    def getpeername(self) -> Any: ...  # its form depends on the family
    def getsockname(self) -> Any: ...
    def recv_into(self, view: memoryview, /) -> int: ...
    def sendmsg(self, views: list[memoryview], /) -> int: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


@runtime_checkable
class ProvenSocket(Protocol):
    """A socket whose other end has proved who it is: a ``TlsSocket``."""

    @property
    def peer_name(self) -> str: ...


class FramedConnection:
    """Frames over a connected socket.

    ``allocate`` gives the memory for bodies of bulk frames, and of large ones (default: a new bytearray for each).
    Every failure of the peer or the network is a PeerError (WireError for bytes that are not a frame). After an error the
    connection cannot be used again.
    """

    def __init__(self, sock: StreamSocket, *, allocate: Allocate | None = None, silence_s: float = SILENCE_S) -> None:
        self._socket = sock
        self._allocate: Allocate = allocate or _allocate_small
        self._send_lock = threading.Lock()
        self._send_number = 0
        self._receive_number = 0
        self._header = bytearray(FRAME_HEADER_BYTES)
        self.silence_s = silence_s = min(silence_s, LONGEST_SOCKET_WAIT_S)
        self.sent_bytes = 0
        self.received_bytes = 0
        self.last_received = time.monotonic()
        self.closed = False
        sock.settimeout(silence_s)
        _tune(sock)

    @property
    def who(self) -> str:
        """The peer for people: ``beta (10.0.0.2:7790)``; without TLS nobody has proved a name."""
        return f"{self.proved_name} ({self.peer})" if self.proved_name else self.peer

    @property
    def proved_name(self) -> str:
        """The name that the peer has proved in TLS; empty without it."""
        return self._socket.peer_name if isinstance(self._socket, ProvenSocket) else ""

    @property
    def peer(self) -> str:
        """HOST:PORT of the peer, or where it is on this machine, for messages."""
        try:
            name = self._socket.getpeername()
        except OSError:
            return "a peer that is gone"
        if self._socket.family == socket.AF_UNIX:
            return f"unix:{name}" if name else "a process of this machine"
        host, port = name[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def local_host(self) -> str:
        """The address of this side; empty on a socket of this machine, and when the connection is gone."""
        if self._socket.family == socket.AF_UNIX:
            return ""
        try:
            return str(self._socket.getsockname()[0])
        except OSError:
            return ""

    @property
    def local_scope(self) -> str:
        """The name of the interface, where the address of this side is one of a single link (RFC 4007); else empty."""
        try:
            scope = self._socket.getsockname()[3] if self._socket.family == socket.AF_INET6 else 0
            return socket.if_indextoname(scope) if scope else ""
        except OSError:
            return ""

    @property
    def remote_host(self) -> str:
        """The address of the peer, empty when the connection is gone, or is none of a network."""
        try:
            return str(self._socket.getpeername()[0]) if self._socket.family in _NETWORKS else ""
        except OSError:
            return ""

    @property
    def socket(self) -> StreamSocket:
        """The socket below, which is a ``TlsSocket`` where the connection is encrypted."""
        return self._socket

    def set_allocate(self, allocate: Allocate) -> None:
        """Change the memory for bulk bodies; call it between two receptions."""
        self._allocate = allocate

    def send_frames(self, frames: Iterable[Frame], *, compress_level: int | None = None) -> int:
        """Send frames one behind the other. Returns the bytes on the wire. Raises PeerError."""
        with self._send_lock:
            buffers: list[Buffer] = []
            for frame in frames:
                buffers += encode(frame, self._send_number, compress_level=compress_level)
                self._send_number += 1
            return self._send(buffers)

    def recv_frame(self, timeout_s: float | None = None) -> Frame | None:
        """The next frame; None when the peer has closed the connection between two frames.

        Waits ``silence_s`` for each piece. With ``timeout_s``, the first byte may take that long instead;
        TimedOut leaves the connection usable. Raises PeerError, WireError or TimedOut.
        """
        if not self._receive_header(timeout_s):
            return None
        header = decode_frame_header(self._header)
        check_number(header, self._receive_number)
        self._receive_number += 1
        bulk = header.kind in BULK_KINDS or header.body_length > MAX_JSON_BYTES
        allocate = self._allocate if bulk else _allocate_small
        body = allocate(header.body_length)
        self._receive_into(body, 0)
        return decode_body(header, body)

    def finish(self) -> None:
        """End sending. Frames that were sent still arrive, and then the peer sees the end. Receiving continues."""
        with contextlib.suppress(OSError):  # the connection is gone already
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close both directions at once, and wake every thread that waits for this connection. Idempotent."""
        self.closed = True
        with contextlib.suppress(OSError):  # not connected: no thread waits
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _send(self, buffers: list[Buffer]) -> int:
        try:
            return hand_over(buffers, self._send_some)
        except TimeoutError:
            raise PeerError(f"{self.peer} took no data and sent none for {self.silence_s:g} seconds") from None
        except OSError as error:
            raise PeerError(f"the connection broke while sending: {error.strerror or error}") from None

    def _send_some(self, views: list[memoryview]) -> int:
        """Send a part. A peer that takes nothing but still sends frames is busy, not gone."""
        while True:
            try:
                sent = self._socket.sendmsg(views)
            except TimeoutError:
                if time.monotonic() - self.last_received >= self.silence_s:
                    raise
            else:
                self.sent_bytes += sent
                return sent

    def _receive_header(self, timeout_s: float | None) -> bool:
        view = memoryview(self._header)
        if timeout_s is None:
            return self._receive_into(view, 0, at_start=True)
        try:
            self._socket.settimeout(timeout_s)
            first = self._socket.recv_into(view[:1])
        except TimeoutError:
            raise TimedOut(f"{self.peer} sent nothing for {timeout_s:g} seconds") from None
        except OSError as error:
            raise PeerError(f"the connection broke: {error.strerror or error}") from None
        finally:
            if not self.closed:
                self._socket.settimeout(self.silence_s)
        if not first:
            return False
        self.received_bytes += 1
        return self._receive_into(view, 1)

    def _receive_into(self, view: memoryview, have: int, *, at_start: bool = False) -> bool:
        """Fill ``view`` from ``have`` on. False when the peer closed before the first byte and ``at_start`` allows it."""
        try:
            while have < len(view):
                count = self._socket.recv_into(view[have:])
                if not count:
                    if at_start and have == 0:
                        return False
                    raise PeerError(f"{self.peer} closed the connection in the middle of a frame")
                have += count
                self.received_bytes += count
                self.last_received = time.monotonic()
        except TimeoutError:
            raise PeerError(f"{self.peer} was silent for {self.silence_s:g} seconds") from None
        except OSError as error:
            raise PeerError(f"the connection broke: {error.strerror or error}") from None
        return True


def _allocate_small(size_bytes: int) -> memoryview:
    return memoryview(bytearray(size_bytes))


def _tune(sock: StreamSocket) -> None:
    """Send small frames at once, and let the kernel's keepalive find peers that vanished without closing."""
    if sock.family not in _NETWORKS:
        return  # a socket pair in a test
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
