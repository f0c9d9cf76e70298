"""A name with several addresses: whoever reaches one of them reaches the secondary."""

from __future__ import annotations

import socket
import threading

import pytest

from pydbt.core.errors import BusyError
from pydbt.network import address
from pydbt.network import listen as listening
from pydbt.network.connect import connect
from pydbt.network.listen import listen


def resolved(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def resolve(host: str, port: int, *, passive: bool = False) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
        return [
            (socket.AF_INET6, (one, port, 0, 0)) if ":" in one else (socket.AF_INET, (one, port)) for one in addresses
        ]

    monkeypatch.setattr(listening, "resolve", resolve)


def answers(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        return probe.connect_ex((host, port)) == 0


def test_a_name_with_several_addresses_is_listened_at_at_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved(monkeypatch, "::1", "127.0.0.1", "127.0.0.2", "192.0.2.9")  # the last one is another machine's
    listener = listen("alpha", 0)
    port = listener.getsockname()[1]
    try:
        for host in ("::1", "127.0.0.1", "127.0.0.2"):
            with connect(host, port) as near:
                far, (where, *_) = listener.accept()
                assert where == (host if ":" in host else "127.0.0.1") or where == host
                far.sendall(b"x")
                assert near.recv(1) == b"x" and far.gettimeout() is None
                far.close()
        threading.Timer(0.2, listener.shutdown, [socket.SHUT_RDWR]).start()
        with pytest.raises(OSError):
            listener.accept()
    finally:
        listener.close()
    assert not answers("127.0.0.1", port)


def test_a_name_without_an_address_here_leaves_no_socket_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a boot its card may come a moment later: a service has to try again, which it does not after wrong usage."""
    resolved(monkeypatch, "192.0.2.9", "192.0.2.10")
    with pytest.raises(
        BusyError, match="cannot listen on alpha:7790: no network card of this machine has that address now"
    ):
        listen("alpha", 7790)


def test_a_port_that_is_taken_at_one_of_the_addresses_is_refused_and_the_others_are_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = taken.getsockname()[1]
        resolved(monkeypatch, "127.0.0.1", "127.0.0.2")
        with pytest.raises(BusyError, match=f"port {port} of alpha is in use"):
            listen("alpha", port)
        assert not answers("127.0.0.1", port)


def test_a_name_that_also_leads_elsewhere_than_loopback_is_not_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, ("127.0.1.1", 7790)), (socket.AF_INET, ("10.0.0.2", 7790))]
    monkeypatch.setattr(address, "resolve", lambda *_, **__: found)
    assert not address.unreachable_name("alpha", 7790)
