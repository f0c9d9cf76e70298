"""A secondary that accepts a connection and sends nothing, because it is frozen, has failed: the primary tries again."""

from __future__ import annotations

import socket

import pytest

from pydbt.controller.primary import handshake
from pydbt.core.errors import PeerError
from pydbt.core.protocol.frames import Hello

_HELLO = Hello(volume="00" * 16, size_bytes=1 << 20, block_bytes=4096, epoch=1, sector_bytes=512)


def test_a_silent_secondary_is_an_unreachable_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "HANDSHAKE_SECONDS", 0.2)
    silence = pytest.raises(PeerError, match="said nothing for")
    with socket.create_server(("127.0.0.1", 0)) as listener, silence:
        handshake.shake_hands("127.0.0.1", listener.getsockname()[1], _HELLO)
