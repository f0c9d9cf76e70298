"""The network: connections as bytes of the real wire format, ordered in each direction like TCP's, and unkind.

A direction may be held up (what was sent arrives when it is over), a connection cut (both ends hear of it, or only
the primary, or nobody), a byte damaged. What an end has sent before it closed may still arrive, also after the next connection
was made.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable

from pydbt.core.errors import WireError
from pydbt.core.protocol.frames import Frame
from pydbt.core.protocol.wire import encode
from tests.lab.decoder import Decoder
from tests.simulation.cluster.clock import Clock


class Link:
    """The way between the primary and one secondary."""

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self.clock, self.rng = clock, rng
        self.delay = 0.005
        self.bytes_per_second = 20e6
        self.held_until = [0.0, 0.0]  # to the secondary, to the primary
        self.damage = [0, 0]  # chunks still to be damaged, by direction
        self.connections: list[Connection] = []
        self.undetected = 0
        self.delivered_at = [0.0, 0.0]  # the last moment at which anything arrived, by direction

    def cut(self, which: str) -> None:
        """Every connection is lost. ``which`` ends hear of it: "both", "primary" or "none"."""
        for connection in self.connections:
            connection.cut(which)
        self.connections = []


class Direction:
    """Bytes one way: encoded by the sender, decoded by the receiver, cut into pieces anywhere."""

    def __init__(self, link: Link, index: int) -> None:
        self.link, self.index = link, index
        self.decoder = Decoder()
        self.number = 0
        self.arrival = link.clock.now
        self.on_the_way: deque[tuple[bytes, str | None]] = deque()
        self.broken = False  # nothing arrives any more
        self.mute = False  # nothing more is taken; what is on the way arrives
        self.damaged = False
        self.queued = 0
        self.sent = 0
        self.receive: Callable[[Frame], None] = lambda frame: None
        self.ended: Callable[[str], None] = lambda reason: None

    def send(self, frames: Iterable[Frame], level: int | None = None) -> None:
        data = bytearray()
        for frame in frames:
            for buffer in encode(frame, self.number, compress_level=level):
                data += buffer
            self.number += 1
        self._carry(bytes(data), None)

    def finish(self, reason: str) -> None:
        self._carry(b"", reason)

    def _carry(self, data: bytes, end: str | None) -> None:
        if self.broken or self.mute:
            return
        link = self.link
        self.queued += len(data)
        self.sent += len(data)
        if data and link.damage[self.index]:
            link.damage[self.index] -= 1
            data = bytearray(data)
            data[link.rng.randrange(len(data))] ^= 1 << link.rng.randrange(8)
            self.damaged = True
        now = link.clock.now
        delay = link.rng.random() * link.delay + len(data) / link.bytes_per_second
        self.arrival = max(self.arrival, now) + delay
        self.on_the_way.append((bytes(data), end))
        link.clock.after(self.arrival - now, self._arrive)

    def _arrive(self) -> None:
        if self.broken:
            return
        link = self.link
        held = link.held_until[self.index]
        if held > link.clock.now:
            link.clock.after(held - link.clock.now, self._arrive)
            return
        link.delivered_at[self.index] = link.clock.now
        data, end = self.on_the_way.popleft()
        self.queued -= len(data)
        if end is not None:
            self.ended(end)
            return
        cut = link.rng.randrange(len(data) + 1)
        self.decoder.feed(data[:cut])
        self.decoder.feed(data[cut:])
        try:
            for frame in self.decoder:
                if not self.broken:
                    self.receive(frame)
        except WireError as error:
            assert self.damaged, f"an undamaged frame was refused: {error}"
            self.ended(str(error))
            self.broken = True


class Connection:
    """Both directions, from connect to the end."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.put_backs = 0  # of the secondary, when it was made
        self.to_secondary, self.to_primary = Direction(link, 0), Direction(link, 1)
        link.connections.append(self)

    def cut(self, which: str) -> None:
        for direction in (self.to_secondary, self.to_primary):
            direction.mute = True
            if which != "primary" or direction is self.to_primary:
                direction.broken = True
        hears = {"both": (self.to_primary, self.to_secondary), "primary": (self.to_primary,), "none": ()}[which]
        for direction in hears:
            self.link.clock.after(self.link.rng.random() * 0.05, lambda d=direction: d.ended("the connection was cut"))
