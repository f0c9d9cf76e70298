"""A secondary: the real Engine with its real workers, stepped instead of threaded, on disks that lose what they may.

What `SecondaryService` does around an Engine is done here in its order: events one by one, a Restart and a state file
that cannot be written build the next Engine from what is on disk.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from queue import Empty
from types import SimpleNamespace

from pydbt.controller.secondary import engine as secondary_engine
from pydbt.controller.secondary.engine import Engine, PersistFailed
from pydbt.core.blocks.apply_plan import ZEROS, plan, sources_of
from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.errors import StateError
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.completed import Completed
from pydbt.core.protocol.mark import NamedMark
from pydbt.core.protocol.recent import RECENT_WRITES
from pydbt.core.secondary import events as e
from pydbt.core.secondary.bad_blocks import BadBlocks
from pydbt.core.secondary.journal import JournalRecordKind, record_extents
from pydbt.core.secondary.primary_watch import PrimaryWatch
from pydbt.store.gate_question_file import load_gate_question
from pydbt.store.open_handover_file import load_open_handover
from tests.simulation.cluster.clock import Clock
from tests.simulation.cluster.disk import SECTOR, Killed, Lossy, Machine
from tests.simulation.cluster.files import Files, SimPath
from tests.simulation.cluster.marks import Found
from tests.simulation.cluster.network import Connection, Link
from tests.simulation.cluster.sim_target import Flaws, SimTarget

SILENCE_S = 15.0
GROWS = "a replica's progress only grows"


class TeeQueue:
    """A worker's queue that remembers what is taken from it, by ticket."""

    def __init__(self) -> None:
        self.items: deque = deque()
        self.taken: dict[int, e.Effect] = {}

    def put(self, item: object) -> None:
        self.items.append(item)

    def get_nowait(self) -> object:
        if not self.items:
            raise Empty
        item = self.items.popleft()
        if isinstance(item, (e.Append, e.Write)):
            self.taken[item.ticket] = item
        return item


class SimEngine(Engine):
    """The real one, whose workers are stepped by the node."""

    def start(self, connections: object) -> None:
        for worker in (self._journal_worker, self._applier):
            worker._items = TeeQueue()
        self.handle(e.Tick(), connections)

    def stop(self) -> None:
        self.journal.close()

    def workers(self) -> list:
        return [worker for worker in (self._journal_worker, self._applier) if worker._items.items]


class TeeJournal(secondary_engine.JournalFiles):
    """The real journal; what was recovered from it stays to be looked at."""

    recovered: tuple = ()

    def recover(self, *arguments: object):
        self.recovered = []
        for header, body in super().recover(*arguments):
            self.recovered.append((header, body))
            yield header, body


class SecondaryNode:
    """One replica: machine, disks, and whatever Engine lives on them right now."""

    def __init__(
        self, number: int, size_bytes: int, clock: Clock, rng: random.Random, stage: bool, journal_bytes: int
    ) -> None:
        self.number, self.clock, self.rng = number, clock, rng
        self.name = name = f"secondary{number}"
        self.address = f"127.0.0.1:{7000 + number}"
        self.link = Link(clock, rng)
        self.versions: random.Random | None = None  # where each boot may be of a program that knows no keyed digests
        self.keyless = False
        self.keeps_history = self.recalls = True
        self.marks: dict[int, Found] = {}  # as they became durable, by number
        self.images: dict[tuple[int, int], bytes] = {}  # of a secondary that keeps times and marks, by position
        self.on_completed: Callable[[SecondaryNode, Completed, int], None] = lambda *told: None
        self.machine = Machine(name)
        self.files = Files(self.machine)
        self.content = Lossy(size_bytes)
        self.captured: deque[tuple[float, int, int]] = deque()  # when, by which run, and the last write
        self.flaws = Flaws()
        self.trouble = ""  # why the target could not be written, while it lacks something
        self.options = SimpleNamespace(
            state_dir=SimPath(f"/{name}", self.files),
            target=SimpleNamespace(is_block_device=lambda: False),
            replay_only=False,
            promote=False,
            stage=stage,
            journal_limit_bytes=journal_bytes,
            accept_sectors=False,
            accept_target=False,
        )
        self.engine: SimEngine | None = None
        self.inbox: deque[tuple[SimEngine | None, object]] = deque()
        self.connections: dict[int, Connection] = {}
        self.heard: dict[int, float] = {}
        self.farewells: set[int] = set()
        self._next = 1
        self._retry_at: float | None = None
        self._trusted: int | None = None
        self.frozen_until = 0.0
        self.restart_at: float | None = None
        # What the target will hold once everything that is journalled is on it.
        self.shadow = bytearray(size_bytes)
        # What it would hold if it were promoted now: the shadow without an unfinished stage.
        self.image = bytearray(size_bytes)
        self._stage: list[tuple[SectorTable, bytes | memoryview]] | None = None
        self.on_boot: Callable[[SecondaryNode], None] = lambda node: None
        self.restarts = 0
        # The highest progress that a primary was ever told, by the name of the replica.
        self.told: dict[str, int] = {}
        self.backup: tuple[Lossy, Files] | None = None
        self.put_backs = 0
        self.covered = True  # whether a controller that starts now would lose nothing for that
        self.noticed = (
            0  # the number of them that this life of the primary was told of, in a WELCOME, or the map tells of
        )

    # --- life ---------------------------------------------------------------------------------------------
    @property
    def up(self) -> bool:
        return self.engine is not None

    @property
    def kept(self) -> BadBlocks:
        """What the engine keeps aside."""
        return self.engine._applier._target._blocks

    def boot(self, trusted: int | None = None, careful: bool = False) -> None:
        """Build an Engine from what is on disk. StateError when that cannot be."""
        self.machine.live()
        self.engine = None
        self.keyless = self.versions is not None and self.versions.random() < 0.5
        target = SimTarget(self.content, self.machine, self.rng, self.flaws, careful=careful or bool(self.trouble))
        folder = self.options.state_dir
        watch = PrimaryWatch(handover=load_open_handover(folder), gate_asked=load_gate_question(folder))
        self.engine = SimEngine(self.options, target, True, self._report, trusted, watch, self.trouble)
        self.shadow = bytearray(self.content.current)
        self.kept.overlay(0, memoryview(self.shadow))
        self.image = bytearray(self.shadow)
        self._stage = None
        for header, body in self.engine.journal.recovered:
            if header.kind in (JournalRecordKind.STREAM, JournalRecordKind.BLOCKS):
                self._durable(*record_extents(header, body))
            elif header.kind in (JournalRecordKind.BEGIN, JournalRecordKind.COMMIT):
                self._stage_moves(begins=header.kind is JournalRecordKind.BEGIN)
        self.engine.start(self)
        self.on_boot(self)

    def kill(self, power: bool) -> None:
        """The process ends here; with ``power`` the machine as well."""
        self.machine.fuse, self.machine.dead = None, True
        self.engine, self._retry_at, self._trusted = None, None, None
        self.inbox.clear()
        for identifier, connection in list(self.connections.items()):
            if power:
                connection.cut("none")
            else:
                connection.to_primary.finish("the secondary closed the connection")
                connection.to_secondary.broken = True
            self._forget(identifier)
        if power:
            self.content.crash(self.rng)
            self.files.crash(self.rng)

    # --- put back -----------------------------------------------------------------------------------------
    def back_up(self, power: bool) -> None:
        """Keep what a kill, or with ``power`` a loss of power, would leave at this instant."""
        self.backup = self.content.copy(), self.files.copy(self.machine)
        if power:
            for part in self.backup:
                part.crash(self.rng)

    def put_back(self) -> None:
        """Kill it, and give it what was kept: target, journal and state file. It has to be started then."""
        content, files = self.backup
        self.kill(power=self.rng.random() < 0.5)
        self.content, self.put_backs = content.copy(), self.put_backs + 1
        copy = files.copy(self.machine)
        self.files.names, self.files.durable_names, self.files.changes = copy.names, copy.durable_names, copy.changes
        self.shadow = bytearray(self.content.current)
        self.told.clear()
        self.marks.clear()
        self.images.clear()

    @property
    def progress(self) -> int | None:
        """What it would tell a primary now; None while nobody can know."""
        return self.engine.brain.keeper.progress if self.engine is not None else None

    def _tell(self, frame: f.Frame) -> None:
        replica, progress = self.engine.brain.record.replica, frame.progress
        if progress < self.told.get(replica, 0):
            raise AssertionError(f"{GROWS}: {progress} in {frame}, and {self.told[replica]} was told before")
        self.told[replica] = progress

    def _report(self, engine: SimEngine, event: object) -> None:
        if isinstance(event, BaseException):
            raise event
        if isinstance(event, e.JournalDurable):
            taken = engine._journal_worker._items.taken
            for ticket in event.tickets:
                entry = taken.pop(ticket).entry
                if isinstance(entry, (f.Stream, f.Blocks)):
                    self._durable(entry.extents, b"".join(entry.payload))
                    if self.keeps_history and isinstance(entry, f.Stream) and self._stage is None:
                        self.images[(engine.brain.keeper.epoch, entry.last)] = bytes(self.image)
                elif isinstance(entry, NamedMark):
                    self.marks[entry.number] = Found(entry, engine.brain.keeper.epoch, bytes(self.image))
                elif isinstance(entry, Completed):
                    self.on_completed(self, entry, engine.brain.keeper.epoch)
                else:
                    self._stage_moves(begins=isinstance(entry, f.Begin))
        elif isinstance(event, e.Written):
            frame = engine._applier._items.taken.pop(event.ticket).frame
            self._durable(frame.extents, b"".join(frame.payload))
        self.inbox.append((engine, event))

    def _stage_moves(self, begins: bool) -> None:
        """A BEGIN, or a COMMIT, is durable in the journal."""
        if begins:
            self._stage = self._stage or []  # a resynchronization that goes on after an interrupted one
            return
        for extents, payload in self._stage or ():
            self._lay(self.image, extents, payload)
        self._stage = None

    def _durable(self, extents: SectorTable, payload: bytes | memoryview) -> None:
        self._lay(self.shadow, extents, payload)
        if self._stage is None:
            self._lay(self.image, extents, payload)
        else:
            self._stage.append((extents, bytes(payload)))

    @staticmethod
    def _lay(image: bytearray, extents: SectorTable, payload: bytes | memoryview) -> None:
        for runs in plan(extents, sources_of(extents, 0)):
            for sector, count, source in zip(
                runs.sectors.tolist(), runs.lengths_sectors.tolist(), runs.sources.tolist(), strict=True
            ):
                data = bytes(count * SECTOR) if source == ZEROS else payload[source : source + count * SECTOR]
                image[sector * SECTOR : (sector + count) * SECTOR] = data

    # --- the network's side, as Connections does it -------------------------------------------------------
    def accept(self, connection: Connection) -> None:
        identifier, self._next = self._next, self._next + 1
        connection.put_backs = self.put_backs
        direction = connection.to_secondary
        direction.receive = lambda frame: self._received(identifier, connection, frame)
        direction.ended = lambda reason: self._lost(identifier, reason)

    def _received(self, identifier: int, connection: Connection, frame: f.Frame) -> None:
        if not self.up and self._retry_at is None:
            return
        if identifier not in self.connections:
            if isinstance(frame, f.Hello):
                self.connections[identifier] = connection
                self.heard[identifier] = self.clock.now
                self.inbox.append((None, e.Connected(identifier, frame, bytes(32))))
            return
        self.heard[identifier] = self.clock.now
        if identifier not in self.farewells:
            self.inbox.append((None, e.FrameReceived(identifier, frame, self.clock.now)))

    def _lost(self, identifier: int, reason: str) -> None:
        connection = self.connections.get(identifier)
        if connection is not None:
            connection.to_secondary.broken = True
            connection.to_primary.finish("the secondary closed the connection")
            self._forget(identifier)
            self.inbox.append((None, e.Disconnected(identifier, reason)))

    def _forget(self, identifier: int) -> None:
        del self.connections[identifier]
        self.heard.pop(identifier, None)
        self.farewells.discard(identifier)

    def send(self, identifier: int, frame: f.Frame) -> None:
        self.machine.touch()
        if self.keyless and isinstance(frame, f.Welcome):
            frame = replace(frame, digest_key=None)
        if not self.keeps_history and isinstance(frame, f.Welcome):
            frame = replace(frame, features=tuple(one for one in frame.features if one != f.HISTORY), marks=None)
        if not self.recalls and isinstance(frame, f.Welcome):
            frame = replace(frame, features=tuple(one for one in frame.features if one != RECENT_WRITES))
        if isinstance(frame, (f.Welcome, f.Ack)):
            self._tell(frame)
        if identifier in self.connections:
            self.connections[identifier].to_primary.send([frame])

    def close(self, identifier: int, reason: str = "") -> None:
        if identifier in self.connections and identifier not in self.farewells:
            self.farewells.add(identifier)
            self.connections[identifier].to_primary.finish("the secondary closed the connection")

    # --- work ---------------------------------------------------------------------------------------------
    def pump(self, steps: int) -> None:
        """Do this many pieces of what there is to do, in an order that chance decides."""
        if self.restart_at is not None and self.clock.now >= self.restart_at:
            self.restart_at = None
            self.machine.live()
            self._retry_at = self.clock.now
        if self.clock.now < self.frozen_until:
            return
        try:
            self._pump(steps)
        except Killed as killed:
            assert killed.machine is self.machine
            self.kill(power=self.rng.random() < 0.6)
            self.restart_at = self.clock.now + self.rng.random() * 2

    def _pump(self, steps: int) -> None:
        if self._retry_at is not None and self.clock.now >= self._retry_at:
            try:
                self.boot(self._trusted)
                self._retry_at = self._trusted = None
            except (StateError, PersistFailed):
                self.engine, self._retry_at = None, self.clock.now + 1.0
        if self.engine is None:
            return
        for identifier, heard in list(self.heard.items()):
            if self.clock.now - heard > SILENCE_S:
                self._lost(identifier, "silence")
        for _ in range(steps):
            engine = self.engine
            if engine is None:
                return
            due = engine.brain.deadline()
            if due is not None and self.clock.now >= due:
                self._handle(e.Tick())
                continue
            if engine._applier._target.is_due:
                engine._applier._look_around()
            choices = engine.workers()
            if self.inbox:
                choices.append(self.inbox)
            if not choices:
                return
            choice = self.rng.choice(choices)
            if choice is self.inbox:
                of, event = self.inbox.popleft()
                if of is None or of is engine:
                    self._handle(event)
            else:
                choice._do(choice._items.get_nowait())

    def _handle(self, event: e.Event) -> None:
        engine = self.engine
        try:
            engine.handle(event, self)
        except PersistFailed as error:
            if engine.brain.peer is not None:
                self.send(engine.brain.peer, f.Refuse("disk-full", str(error)))
            self._rebuild(None)
            return
        if self.flaws.bad or self.flaws.torn or self.trouble:  # in other worlds it is as if nobody had remembered why
            self.trouble = engine.brain.trouble
        if engine.restart is not None:
            self._rebuild(engine.restart.trusted)
        elif engine.takeover is not None:
            self._take_over(engine, engine.takeover)

    def _take_over(self, engine: SimEngine, takeover: e.TakeOver) -> None:
        """As SecondaryService does it: once everything is on the target, be promoted, and tell of that; nothing else is begun."""
        self.inbox = deque(
            (of, item) for of, item in self.inbox if not isinstance(item, (e.Connected, e.FrameReceived))
        )
        if not engine.brain.drained:
            return
        refusal = ""
        try:
            engine.promote("")
        except StateError as error:
            refusal, engine.takeover = str(error), None
        self.send(takeover.connection, f.Takeover(True, refusal))
        self.close(takeover.connection)
        if not refusal:
            self.engine = None

    def _rebuild(self, trusted: int | None) -> None:
        for identifier in list(self.connections):
            self.close(identifier)
        self.engine.stop()
        self.engine, self._trusted = None, trusted
        self._retry_at = self.clock.now + 1.0
        self.restarts += 1

    # --- what a crash would leave -------------------------------------------------------------------------
    def after_a_crash(self, power: bool) -> SecondaryNode:
        """A copy of this node as it would come up if it stopped now, at rest. The node itself notices nothing."""
        machine = Machine(self.name)
        other = SecondaryNode(self.number, len(self.content.current), self.clock, self.rng, self.options.stage, 0)
        other.options.journal_limit_bytes = self.options.journal_limit_bytes
        other.machine, other.content = machine, self.content.copy()
        other.flaws = self.flaws.copy()
        other.files = self.files.copy(machine)
        other.options.state_dir = SimPath(self.options.state_dir.text, other.files)
        if power:
            other.content.crash(self.rng)
            other.files.crash(self.rng)
        other.boot(self._trusted if not power else None, careful=True)
        for _ in range(200):
            if other.engine.brain.drained:
                return other
            other._pump(20)
        raise AssertionError("a replica that nobody disturbs did not come to rest")
