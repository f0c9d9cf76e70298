"""The primary: the real `run_primary`, from start-up to its end, with its loop and brain, over a simulated kernel.

The loop waits for its inbox; that wait is where the rest of the world goes on. A kill is raised from there, or from any
touch of the world, and nothing that the dying process still tries to do leaves a trace.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from pydbt.controller.options import PrimaryOptions
from pydbt.controller.primary import configuring
from pydbt.controller.primary import service as primary_service
from pydbt.controller.primary.auditor import look_at
from pydbt.controller.primary.ending import run_to_the_end
from pydbt.controller.primary.handshake import Happening, Refused, Welcomed
from pydbt.controller.primary.loop import PrimaryLoop
from pydbt.controller.primary.peer import Peer
from pydbt.controller.primary.peer_connection import Attempt, PeerConnection
from pydbt.controller.requests import Request
from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.errors import PeerError
from pydbt.core.primary import events as ev
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.mark_events import PlaceMark
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.frames import Frame
from pydbt.core.protocol.refusals import is_expected
from pydbt.core.tracking.audit import Look
from pydbt.device.filesystem import UsedExtents
from pydbt.network.address import format_address, split_address
from pydbt.store.map_file import load_map
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from pydbt.store.volume_state import VOLUME_FILE_NAME, VolumeState, load_state
from tests.simulation.cluster.clock import Clock
from tests.simulation.cluster.disk import SECTOR, Killed, Machine
from tests.simulation.cluster.files import Files, SimPath
from tests.simulation.cluster.kernel import Capture, Device, Era, Kernel
from tests.simulation.cluster.network import Connection
from tests.simulation.cluster.primary_stand_ins import (
    PrimaryEnd,
    SimMapWriter,
    SourcePath,
)
from tests.simulation.cluster.schedule import Shape
from tests.simulation.cluster.secondary_node import SecondaryNode

HANDSHAKE_S = 10.0


class PrimaryNode:
    """The machine of the primary: kernel, state directory, and the controller while one runs."""

    def __init__(
        self, kernel: Kernel, clock: Clock, rng: random.Random, secondaries: list[SecondaryNode], shape: Shape
    ) -> None:
        self.kernel, self.clock, self.rng, self.secondaries = kernel, clock, rng, secondaries
        self.machine = Machine("primary")
        self.files = Files(self.machine)
        self.state_dir = SimPath("/primary", self.files)
        self.device = Device(kernel)
        self.loop: PrimaryLoop | None = None
        self.writer: SimMapWriter | None = None
        self.epochs = 0
        self.writes_while_compiling = 0.3
        self._attached: tuple[object, object] = (None, None)
        self._decoded: tuple[bytes, VolumeState | None] = (b"", None)
        self._decoded_maps: dict[str, tuple[bytes, np.ndarray | None]] = {}
        # How many writes the kernel had taken when the brain counted to a sequence number, by (epoch, sequence).
        self.orders: dict[tuple[int, int], tuple[Era, int]] = {}
        self.on_place: Callable[[int], None] = lambda number: None
        self.on_failure: Callable[[Exception], None] = lambda error: None
        self.options = PrimaryOptions(
            source=SourcePath("/dev/sim", self.files),
            secondaries=tuple(split_address(node.address) for node in secondaries[: None if shape.all_at_once else 1]),
            state_dir=self.state_dir,
            insecure=True,
            block_bytes=shape.block_bytes,
            compress=shape.compress,
            log_bytes=shape.log_slots * configuring.LOG_SLOT_BYTES,
            data_ring_bytes=shape.data_bytes,
            compare_first=shape.digests,
            rate_limit_bytes_per_s=shape.rate_limit,
        )
        self.tracing: Callable[[ev.Event, list], None] | None = None

    # --- life ---------------------------------------------------------------------------------------------
    def run(self) -> None:
        """One life of the controller, until it ends in one way or the other."""
        self.machine.dead = False  # a fuse that is lit goes on burning
        self.loop = None
        try:
            primary_service.run_primary(self.options)
        except Killed as killed:
            assert killed.machine is self.machine
        finally:
            self.machine.dead = True
            self.loop = self.writer = None
            self.kernel.stale = None  # programs end long before another controller starts

    def cut_off(self) -> None:
        """The process is gone: the kernel closes its connections."""
        for node in self.secondaries:
            for connection in node.link.connections:
                connection.to_secondary.finish("the primary closed the connection")
                connection.to_secondary.mute = True
                connection.to_primary.broken = True

    def power_loss(self) -> None:
        for node in self.secondaries:
            for connection in node.link.connections:
                connection.cut("none")
        self.clock.drop_kernel()
        self.kernel.power_loss()
        self.files.crash(self.rng)

    def ask(self, command: str, **arguments: object) -> Request:
        request = Request(command, threading.Event(), arguments=arguments)
        self.loop.volume.inbox.post(request)
        return request

    def has_heard_of(self, node: SecondaryNode, peer: Peer) -> bool:
        """Whether the brain was welcomed by this secondary since it was last put back."""
        outbox = peer.connection._outbox
        if outbox is not None and peer.brain.link.up and outbox._end.connection.put_backs == node.put_backs:
            node.noticed = node.put_backs
        return node.noticed == node.put_backs

    def _forget_what_was_noticed(self) -> None:
        """What the last controller had noticed, and did not live to write into a map, the next one notices itself."""
        for record in self.records():
            node = self.node_at(record.address)
            if node.put_backs and node.progress is not None and node.progress < record.progress:
                node.noticed = min(node.noticed, node.put_backs - 1)

    # --- who is replicated to -----------------------------------------------------------------------------
    def node_at(self, address: str) -> SecondaryNode:
        return next(node for node in self.secondaries if node.address == address)

    def records(self) -> list[SecondaryRecord]:
        """The secondaries that are written down."""
        state = self.state()
        return list(state.secondaries) if state is not None else []

    def state(self) -> VolumeState | None:
        """What is written down; decoded only when it has changed."""
        try:
            data = (self.state_dir / VOLUME_FILE_NAME).read_bytes()
        except FileNotFoundError:
            return None
        if data != self._decoded[0]:
            self._decoded = data, load_state(self.state_dir)
        return self._decoded[1]

    def peers(self) -> list[tuple[SecondaryNode, Peer]]:
        """Those that the running controller replicates to."""
        return (
            [(self.node_at(peer.address), peer) for peer in self.loop.volume.peers.values()]
            if self.loop is not None
            else []
        )

    def map_on_disk(self, record: SecondaryRecord) -> np.ndarray | None:
        """The blocks that the next controller finds in the map file of a secondary; None without one."""
        return self._blocks_in(record.map_name)

    def left_out_on_disk(self, record: SecondaryRecord) -> np.ndarray | None:
        """The blocks that the next controller takes for space that the secondary was never given; None without a file."""
        return self._blocks_in(record.free_name)

    def _blocks_in(self, name: str) -> np.ndarray | None:
        """Decoded only when the file has changed. Nobody changes what it returns."""
        path = self.state_dir / name
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        before, mask = self._decoded_maps.get(name, (b"", None))
        if data != before:
            _, blocks = cast("tuple[object, DirtyMap]", load_map(path))
            mask = np.zeros(self.kernel.geometry.block_count, bool)
            mask[blocks.extents().blocks()] = True
            self._decoded_maps[name] = data, mask
        return mask

    # --- what the service finds in the place of the world -------------------------------------------------
    def serve(self, loop: PrimaryLoop, options: PrimaryOptions, stack: contextlib.ExitStack) -> int:
        self.loop = loop
        self._forget_what_was_noticed()
        for brain in loop.volume.brains:
            self._trace(brain)
        join = loop.volume.join

        def joined(slot: int, secondary: configuring.Joining) -> Peer:
            peer = join(slot, secondary)
            self._trace(peer.brain)
            return peer

        loop.volume.join = joined
        return run_to_the_end(loop)

    def _trace(self, brain: Primary) -> None:
        handle, epoch = brain.handle, brain.config.epoch
        # The first landing of this life takes in whatever was submitted before it began.
        self.orders[(epoch, 0)] = (self.kernel.era, self.kernel.submitted)
        state = {"sequence": 0, "order": self.kernel.submitted}

        def traced(event: ev.Event, now: float) -> list[ev.Effect]:
            if self.machine.dead:
                self.machine.touch()
            if isinstance(event, ev.Captured):
                for kind, order, sectors in zip(
                    event.records["kind"].tolist(), event.records["ordinal"].tolist(),
                    event.records["sectors"].tolist(), strict=True,
                ):  # fmt: skip
                    if kind == 1 and sectors:
                        state["sequence"] += 1
                        state["order"] = max(order, state["order"])
                        self.orders[(epoch, state["sequence"])] = (self.kernel.era, order)
            if isinstance(event, PlaceMark):
                self.on_place(event.mark.number)
            try:
                effects = handle(event, now)
            except Exception as error:
                self.on_failure(error)
                self.machine.die()
            while state["sequence"] < brain.state.sequence:  # what was settled takes numbers too
                state["sequence"] += 1
                self.orders[(epoch, state["sequence"])] = (self.kernel.era, state["order"])
            if self.tracing is not None:
                self.tracing(event, effects)
            return effects

        brain.handle = traced

    def writes_at(self, epoch: int, sequence: int) -> tuple[Era, int, int] | None:
        """The era of a position, and how many writes are in an image there: at least and at most.

        Of writes whose records were lost only a sweep tells; an image may have them before the next number.
        """
        found = self.orders.get((epoch, sequence))
        if found is None:
            return None
        era, least = found
        later, most = sequence + 1, self.kernel.submitted
        while (following := self.orders.get((epoch, later))) is not None:
            if following[1] > least:
                most = following[1] - 1
                break
            later += 1
        return era, least, most

    def connect(self, peer: PeerConnection, attempt: int, hello: f.Hello, expected: str) -> None:
        """What the connecting thread does, as events of the world."""
        loop, node = self.loop, self.node_at(format_address(*peer.address))
        connection = Connection(node.link)
        direction = connection.to_primary
        state = {"over": False}

        def post(item: Happening) -> None:
            if not self.machine.dead and loop is self.loop:
                peer.post(Attempt(attempt, item))

        def end(item: Happening) -> None:
            if not state["over"]:
                state["over"] = True
                post(item)

        def first(frame: Frame) -> None:
            state["shaken"] = True
            match frame:
                case f.Welcome() if not is_expected(expected, frame.replica, frame.formerly or ()):
                    end(Refused("other-replica", "another replica answers"))
                case f.Welcome():
                    direction.receive = lambda other: post(ev.Received(other))
                    direction.ended = lambda reason: end(ev.Disconnected(reason))
                    post(Welcomed(PrimaryEnd(connection), frame))
                case f.Refuse(code=code, message=message):
                    end(Refused(code, message))
                case other:
                    end(PeerError(f"it answered a greeting with {type(other).__name__}"))

        def too_late() -> None:
            if "shaken" not in state:
                PrimaryEnd(connection).close()
                end(PeerError("it accepted the connection and said nothing"))

        direction.receive = first
        direction.ended = lambda reason: end(PeerError(reason))
        self.clock.after(HANDSHAKE_S, too_late)
        if node.machine.dead or self.clock.now < node.link.held_until[0]:
            self.clock.after(0.5, lambda: end(PeerError("no route to host")))
            return
        node.accept(connection)
        if not node.keeps_history:
            hello = replace(hello, features=tuple(one for one in hello.features if one != f.MARKS))
        connection.to_secondary.send([hello])

    def epoch(self, bits: int) -> int:
        self.epochs += 1
        return 1000 + 2 * self.epochs  # the service makes it odd

    def used(self, device: Device) -> UsedExtents:
        """A file system's answer: whatever was ever written, and what is being written."""
        used = np.frombuffer(bytes(self.kernel.disk.current), "<u8").reshape(-1, SECTOR // 8).any(axis=1)
        used |= self.kernel.ever_written
        sectors = np.flatnonzero(used).astype(np.int64)
        return UsedExtents(sectors * SECTOR, np.full(len(sectors), SECTOR, np.int64), "simulated", False)

    def capture_class(self) -> SimpleNamespace:
        """In the place of the class Capture: reopen, attach and remove_pins."""

        def reopen(pins: object) -> Capture | None:
            self.machine.touch()
            return Capture(self.kernel, self.machine, *self._attached) if self.kernel.attached else None

        def attach(volume: object, options: object, pins: object) -> Capture:
            for record in self.records():
                is_lacking = record.phase is not SyncPhase.INITIAL and self.map_on_disk(record) is None
                assert record.taints or not is_lacking, "programs are attached before a taint is on the disk"
            self._compile()
            self._attached = (volume, options)
            self.kernel.attach()
            self.machine.touch()
            return Capture(self.kernel, self.machine, volume, options)

        def remove_pins(pins: object) -> None:
            self.machine.touch()
            self.kernel.attached = False

        return SimpleNamespace(reopen=reopen, attach=attach, remove_pins=remove_pins)

    def _compile(self) -> None:
        """Takes a second, and nobody tracks what is written meanwhile."""
        self.machine.touch()
        if self.rng.random() < self.writes_while_compiling:
            self.kernel.random_write()
        self.clock.run_kernel(self.rng.random())
        self.machine.touch()

    def tracked_volume(self, pins: object) -> object:
        return self._attached[0] if self.kernel.attached else None

    def look_at_pinned(self, device: Device, state: object) -> Look | None:
        """It only reads: nobody can tell where a controller died in it."""
        capture = Capture(self.kernel, self.machine, *self._attached) if self.kernel.attached else None
        return None if capture is None else look_at(cast("Any", device), cast("Any", capture))

    def is_untouched(self, marker: dict[str, object] | None, device: Device, reader: object = None) -> bool:
        return bool(marker) and {
            name: value for name, value in (marker or {}).items() if name != "maps"
        } == self.marker(device)

    def marker(self, device: Device, reader: object = None) -> dict[str, object]:
        return {
            "boot_id": self.boot_id(),
            "disk_sequence": 1,
            "write_sectors": self.kernel.write_sectors,
            "discard_sectors": 0,
        }

    def as_target(self, path: object) -> SimpleNamespace:
        """The device as a replica's target."""
        self.machine.touch()
        return SimpleNamespace(identity="block-device:sim-primary", close=lambda: None)

    def boot_id(self) -> str:
        return f"boot-{self.kernel.boots}"

    def map_writer(self) -> SimMapWriter:
        self.writer = SimMapWriter(self)
        return self.writer

    def thread(self, target: Callable, args: tuple = (), name: str = "", daemon: bool = False) -> SimpleNamespace:
        assert name == "connect", f"the loop has a thread {name} that is not simulated"
        return SimpleNamespace(start=lambda: self.connect(target.__self__, *args))
