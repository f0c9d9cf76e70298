"""Strangers at the secondary's port, from however many addresses and networks, do not displace the primary that it knows."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pydbt.controller.secondary.connections import MAX_STRANGERS, Connections
from pydbt.core.protocol.frames import Welcome
from pydbt.network.arena import Arena
from pydbt.network.connection import FramedConnection

WELCOME = Welcome(None, "inconsistent", 0, 0, False, 1 << 20, True)
FRIEND = "2001:db8:1::7"


@pytest.fixture
def connections() -> Iterator[Connections]:
    made = Connections(socket.socket(), Arena(1 << 20), lambda _: None)
    yield made
    for _, sock in made._strangers.values():
        sock.close()
    made.stop()


def come(connections: Connections, identifier: int, host: str) -> None:
    """As one who was accepted from an address."""
    connections._strangers[identifier] = host, socket.socket()
    if len(connections._strangers) > MAX_STRANGERS:
        connections._evict()


def hosts(connections: Connections) -> list[str]:
    return [host for host, _ in connections._strangers.values()]


def test_a_crowd_from_one_network_keeps_nobody_else_out(connections: Connections) -> None:
    come(connections, 1, FRIEND)
    for number in range(2, 4 * MAX_STRANGERS):
        come(connections, number, f"2001:db8:bad::{number:x}")
    assert FRIEND in hosts(connections) and len(hosts(connections)) == MAX_STRANGERS


def test_the_address_that_was_welcomed_last_is_displaced_by_nobody(connections: Connections) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        come(connections, 1, FRIEND)
        connections._known[1] = FramedConnection(ours)
        connections.send(1, WELCOME)
        assert hosts(connections) == []
        come(connections, 2, FRIEND)
        for number in range(3, 4 * MAX_STRANGERS):
            come(connections, number, f"2001:db8:bad:{number:x}::1")
        assert FRIEND in hosts(connections) and len(hosts(connections)) == MAX_STRANGERS
