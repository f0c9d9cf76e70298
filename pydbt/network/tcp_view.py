"""TCP's own account of a connection, asked from the kernel: ``struct tcp_info`` in include/uapi/linux/tcp.h."""

from __future__ import annotations

import socket
import struct

from pydbt.core.primary.interruption import TcpView
from pydbt.network.connection import StreamSocket

# tcpi_retransmits, the flag of delivery_rate_app_limited, tcpi_unacked, tcpi_last_ack_recv (ms), tcpi_delivery_rate.
_RETRANSMITS, _FLAGS, _UNACKED, _LAST_ACK, _DELIVERY_RATE = 2, 7, 24, 56, 160
_LENGTH_BYTES = _DELIVERY_RATE + 8
_APP_LIMITED = 1


def tcp_view(sock: StreamSocket) -> TcpView | None:
    """None for a socket that is closed or not TCP's, and for a kernel that tells less."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LENGTH_BYTES)
    except OSError:
        return None
    if len(info) < _LENGTH_BYTES:
        return None
    (unacknowledged,) = struct.unpack_from("=I", info, _UNACKED)
    (answer_age_ms,) = struct.unpack_from("=I", info, _LAST_ACK)
    (rate,) = struct.unpack_from("=Q", info, _DELIVERY_RATE)
    return TcpView(
        unacknowledged=unacknowledged,
        answer_age_s=answer_age_ms / 1000,
        retransmissions=info[_RETRANSMITS],
        delivery_rate_bytes=None if info[_FLAGS] & _APP_LIMITED or not rate else rate,
    )
