"""The planned change of places in a world: `controller switchover`, with everything that may happen to both sides meanwhile.

The primary's part is the product's own, from the command to the demotion and the last word to the secondary. The secondary's
brain decides by itself; what its service does around it is done here in the same order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from pydbt.controller.primary.handshake import Refused
from pydbt.controller.requests import Request
from pydbt.core.errors import PeerError, TimedOut
from pydbt.core.primary.modes import Mode
from pydbt.core.protocol import frames as f
from pydbt.core.secondary.open_handover import HandoverStage
from pydbt.network.address import format_address
from pydbt.store.listen_file import load_listen
from pydbt.store.open_handover_file import load_open_handover
from pydbt.store.replica_state import load_record
from pydbt.store.volume_state import VOLUME_FILE_NAME
from tests.simulation.cluster.checkers import Violation, torn
from tests.simulation.cluster.network import Connection

if TYPE_CHECKING:
    from tests.simulation.cluster.secondary_node import SecondaryNode
    from tests.simulation.cluster.world import World

LISTEN = "127.0.0.1:6999"
PATIENCE_S = 20.0
# A person who finds no primary waits longer than any message lives.
PERSON_WAITS_S = 100.0


class Switchover:
    """What a world knows of its changes of places. Nothing writes to the volume from the command on, until it is given up."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.asked: Request | None = None
        self.wanted = False
        self._breath = world.kernel.odds.breath
        self._eras = 0
        self._content = b""  # of the volume, before a loss of power may take from it what was not flushed

    @property
    def unmounted(self) -> bool:
        """Whether programs have let go of the volume."""
        return self.asked is not None

    def _ask_in_time(self) -> None:
        """The command, as soon as both sides are in sync: a person waits for that."""
        peers = self._world.primary.peers()
        if self.wanted and self.asked is None and len(peers) == 1 and peers[0][1].brain.mode is Mode.NORMAL:
            self._breathe(0.0)
            self._eras = len(self._world.eras)
            self.asked = self._world.primary.ask("switchover", listen=LISTEN, timeout=PATIENCE_S)

    def _breathe(self, breath: float) -> None:
        """How often programs write while the controller does something else."""
        kernel = self._world.kernel
        kernel.odds = replace(kernel.odds, breath=breath)

    def _mounted_again(self) -> None:
        self.asked = None
        if not self._world.healing:
            self._breathe(self._breath)

    def look(self) -> None:
        """At every step: given up, the volume is mounted again; and there are never two primaries."""
        self._ask_in_time()
        if self.asked is None:
            return
        if self.asked.done.is_set() and self.asked.error is not None and not self.is_replica:
            self._mounted_again()
            return
        if len(self._world.eras) == self._eras:
            self._content = bytes(self._world.kernel.disk.current)
        if not self.is_replica and any(is_promoted(node) for node in self._world.secondaries):
            raise Violation("never two primaries", "the secondary was promoted, and the primary is no replica")

    def life_ended(self) -> None:
        """The controller is gone. If this side is still the primary, its volume is mounted again."""
        if self.asked is not None and not self.is_replica:
            self._mounted_again()

    @property
    def is_replica(self) -> bool:
        """Whether the primary's side has become a replica, as any program would find it now."""
        record = load_record(self._world.primary.state_dir)
        return record is not None and not record.promoted

    def settle(self) -> None:
        """This side is a replica: the other is the primary now, or a person makes it one. It has everything."""
        world = self._world
        (node,) = world.secondaries
        until = world.clock.now + PERSON_WAITS_S
        world.calm()
        while world.clock.now < until and not is_promoted(node):
            world.clock.run(0.2)
            node.pump(100)
        if (world.primary.state_dir / VOLUME_FILE_NAME).exists() and not self.is_replica:
            raise Violation("never two primaries", "a replica became a primary by itself")
        if (listen := load_listen(world.primary.state_dir)) != LISTEN:
            raise Violation("a replica knows after a reboot where its primary expects it", f"it knows {listen!r}")
        if not is_promoted(node):
            _require_told("the old primary", world.primary.state_dir, HandoverStage.GIVEN)
            _require_told("the secondary", node.options.state_dir, HandoverStage.ASKED, HandoverStage.REFUSED)
        copy = node if is_promoted(node) else node.after_a_crash(power=False)
        content = bytes(copy.content.current[: world.geometry.size_bytes])
        if torn(content) or content != self._content:
            raise Violation("nothing is lost in a change of places", f"promoted: {is_promoted(node)}")


def _require_told(side: str, state_dir: Path, *stages: HandoverStage) -> None:
    """Its status tells a person that nobody may have taken the place."""
    found = load_open_handover(state_dir)
    if found is None or found.stage not in stages:
        raise Violation("while nobody is known to be the primary, each side tells it", f"{side} tells {found}")


def is_promoted(node: SecondaryNode) -> bool:
    """As any program would find it now."""
    record = load_record(node.options.state_dir)
    return record is not None and bool(record.promoted)


class Teller:
    """The connection of a former primary to its secondary, in the place of `shake_hands`."""

    def __init__(self, world: World, node: SecondaryNode) -> None:
        self._world = world
        self._heard: deque[f.Frame | None] = deque()
        self._connection = Connection(node.link)
        self._connection.to_primary.receive = self._heard.append
        self._connection.to_primary.ended = lambda reason: self._heard.append(None)
        world.primary.machine.touch()
        if node.machine.dead or world.clock.now < node.link.held_until[0]:
            raise PeerError("no route to host")
        node.accept(self._connection)

    def send_frames(self, frames: list[f.Frame]) -> None:
        self._world.primary.machine.touch()
        self._connection.to_secondary.send(frames)

    def recv_frame(self, timeout_s: float) -> f.Frame | None:
        until = self._world.clock.now + timeout_s
        while not self._heard:
            if self._world.clock.now > until:
                raise TimedOut("it said nothing")
            self._world.waited(0.1)
        return self._heard.popleft()

    def close(self) -> None:
        self._connection.to_secondary.finish("the old primary closed the connection")


def shaking_hands(world: World) -> Callable[..., tuple[Teller, f.Welcome]]:
    """In the place of `shake_hands`."""

    def shake_hands(host: str, port: int, hello: f.Hello, secure: object) -> tuple[Teller, f.Welcome]:
        teller = Teller(world, world.primary.node_at(format_address(host, port)))
        teller.send_frames([hello])
        match teller.recv_frame(10.0):
            case f.Welcome() as welcome:
                return teller, welcome
            case f.Refuse(code=code, message=message):
                raise Refused(code, message)
        raise PeerError("it closed the connection")

    return shake_hands


def held_device(world: World) -> SimpleNamespace:
    """In the place of `os` where the device is held exclusively."""
    return SimpleNamespace(
        O_RDWR=0,
        O_EXCL=0,
        O_CLOEXEC=0,
        open=lambda path, flags: world.primary.machine.touch() or 3,
        close=lambda hold: None,
    )
