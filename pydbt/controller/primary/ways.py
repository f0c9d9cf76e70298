"""Tells the brains what the kernel knows of their connections: the way to each secondary, and TCP's account."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from math import inf

from pydbt.controller.primary.inbox import Heard
from pydbt.controller.primary.peer_connection import PeerConnection
from pydbt.controller.primary.volume import Volume
from pydbt.core.primary import events as ev
from pydbt.core.primary.interruption import Way
from pydbt.network.way_watch import Ends, WayWatch

# A question to the kernel costs microseconds.
CONNECTION_LOOK_S = 0.2


class Ways:
    """Called from the loop's thread alone, but for ``_seen``. ``watch`` makes the watch of links, addresses and routes."""

    def __init__(self, volume: Volume, watch: Callable[[Callable[[int, Way], None]], WayWatch] = WayWatch) -> None:
        self._volume = volume
        self._next_look = 0.0
        self._last: dict[int, Ends] = {}
        self._watch = watch(self._seen)

    def advance(self, now: float) -> None:
        """Look at the connections, when it is time."""
        if now < self._next_look:
            return
        self._next_look = now + CONNECTION_LOOK_S
        ways = {}
        for number, peer in self._volume.peers.items():
            if (view := peer.connection.tcp_view()) is not None:
                self._volume.events.append((number, ev.LinkSeen(view)))
            if (ends := self._ends(number, peer.connection)) is not None:
                ways[number] = ends
        self._last = ways
        self._watch.look_at(ways)

    def deadline(self) -> float:
        """When to look again. While no answer is owed there is nothing to see, and it is looked when something else is due."""
        owed = any(peer.brain.link.awaits_answer for peer in self._volume.peers.values())
        return self._next_look if owed else inf

    def _ends(self, number: int, connection: PeerConnection) -> Ends | None:
        """Of the connection; without one of the last, or of the address that was given; None when that is a name."""
        if (ends := connection.ends()) is not None:
            return ends
        if number in self._last:
            return self._last[number][0], ""
        try:
            return str(ipaddress.ip_address(connection.address[0])), ""
        except ValueError:
            return None

    def _seen(self, number: int, way: Way) -> None:
        """From the watch's thread."""
        peer = self._volume.peers.get(number)
        if peer is not None:
            self._volume.inbox.post(Heard(peer, ev.LinkSeen(way)))

    def close(self) -> None:
        self._watch.close()
