"""One world: the machines, the network between them, and a plan of their faults."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from pydbt.controller.primary.peer import Peer
from pydbt.core.errors import PydbtError
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.modes import Mode
from pydbt.core.secondary.bad_blocks import BAD_BLOCK_BYTES
from pydbt.core.units import Geometry
from tests.simulation.cluster import checkers
from tests.simulation.cluster.checkers import Violation
from tests.simulation.cluster.clock import Clock
from tests.simulation.cluster.kernel import Era, Kernel, Odds
from tests.simulation.cluster.marks import SimMarks, has_history
from tests.simulation.cluster.patches import installed
from tests.simulation.cluster.primary_node import PrimaryNode
from tests.simulation.cluster.primary_stand_ins import SimInbox, SimReader
from tests.simulation.cluster.schedule import Op, Plan
from tests.simulation.cluster.secondary_node import SecondaryNode
from tests.simulation.cluster.sight import Sight
from tests.simulation.cluster.switchover import Switchover

HEAL_S = 400.0
HEAL_STEPS = 4000
# In one of this many worlds the secondaries change between programs with and without keyed digests.
KEYLESS_EVERY = 8
# Worlds in which a secondary tells what it got last. Older mistakes are caught in others, by worlds as they were.
RECALL_EVERY, RECALL_AT = 10, 6


class World:
    """Plays a plan to its end. ``log`` is what happened, in words, if ``verbose``."""

    def __init__(self, plan: Plan, verbose: bool = False) -> None:
        shape = plan.shape
        self.plan, self.verbose = plan, verbose
        self.rng = random.Random(plan.seed)
        self.clock = Clock()
        self.geometry = Geometry(shape.size_bytes, shape.block_bytes)
        self.kernel = Kernel(self.geometry, shape.odds, self.rng, shape.ring_records, shape.data_bytes)
        self.kernel.schedule, self.kernel.advance = self.clock.at_kernel, self.clock.run_kernel
        self.secondaries = [
            SecondaryNode(number, shape.size_bytes, self.clock, self.rng, shape.stage, shape.journal_bytes)
            for number in range(1, shape.secondaries + 1)
        ]
        for node in self.secondaries:
            node.link.delay, node.link.bytes_per_second = shape.delay, shape.bytes_per_second
            node.on_boot = self._note_boot
            node.keeps_history = has_history(plan.seed)
            node.recalls = plan.seed % RECALL_EVERY == RECALL_AT
            node.on_completed = lambda *told: self.marks.completed(*told)
            if plan.seed % KEYLESS_EVERY == KEYLESS_EVERY - 1:
                node.versions = random.Random(f"versions of {node.name} in {plan.seed}")
        self.primary = PrimaryNode(self.kernel, self.clock, self.rng, self.secondaries, shape)
        self.switchover = Switchover(self)
        self.marks = SimMarks(self)
        self.primary.on_place = self.marks.placed
        self.log: list[str] = []
        self.failure: Exception | None = None
        self._ops = iter(plan.ops)
        self.healing = False
        self.over = False
        self.frozen_until = 0.0
        self.start_at = 0.0
        self._power = False
        self._restart_seconds = 1.0
        self.eras: list[Era] = [self.kernel.era]
        self.floors: dict[int, tuple[Era, int]] = {node.number: (self.kernel.era, 0) for node in self.secondaries}
        self._waits: list[tuple[object, dict[int, Peer], Era, int]] = []
        self._heal_until = 0.0
        self._heal_steps = 0
        self.steps = 0
        self.listed: list[
            tuple[object, object]
        ] = []  # what the list of transactions went by when it was last looked at
        self.unread = np.zeros(self.geometry.block_count, bool)  # blocks that could not be read for a while
        self._committed: dict[int, tuple[int, int]] = {}
        self._backup_floors: dict[int, tuple[Era, int]] = {}

    # --- playing ------------------------------------------------------------------------------------------
    def play(self) -> None:
        """Raise what went wrong, if anything does."""
        SimInbox.wait = self.waited
        with installed(self.primary, self.plan.shape, self):
            for _ in range(self.geometry.block_count // 2):
                self.kernel.random_write()
            self.clock.run_kernel(5.0)
            self.primary.on_failure = self._fail
            if self.verbose:
                self.primary.tracing = self._trace
            for node in self.secondaries:
                node.boot()
            while not self.over and self.failure is None:
                if self.clock.now >= self.start_at:
                    self._life()
                else:
                    self._guarded(self._step)
        if self.failure is not None:
            raise self.failure

    def _life(self) -> None:
        """One run of the controller, and what ends with it."""
        self._say("the controller starts")
        try:
            self.primary.run()
        except PydbtError as error:
            self._say(f"the controller ended: {error}")
            if not self.primary.machine.no_room:
                self._fail(error)
        except Exception as error:
            self._fail(error)
        if self.over or self.failure is not None:
            return
        self._say("the controller is gone")
        if self._power:
            self._power = False
            self.primary.power_loss()
            self.eras.append(self.kernel.era)
        else:
            self.primary.cut_off()
        self._waits = []
        self.marks.life_ended()
        if self.switchover.is_replica:
            self._guarded(self.switchover.settle)
            self.over = True
            return
        self.switchover.life_ended()
        self._guarded(lambda: checkers.differs_is_out_of_sync(Sight(self)))
        self._guarded(lambda: checkers.what_was_written_is_not_left_out(self))
        self.start_at = self.clock.now + self._restart_seconds

    def waited(self, timeout: float) -> None:
        """The controller waits: the world's turn."""
        self.primary.machine.touch()
        self._guarded(self._step)
        while self.clock.now < self.frozen_until and not self.over and self.failure is None:
            self._guarded(self._step)
        if self.over or self.failure is not None:
            self.primary.machine.die()
        self.primary.machine.touch()

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self.failure is None:
            self.failure = error
            self._say(f"FAILED: {error}")

    def _step(self) -> None:
        self.steps += 1
        self.switchover.look()
        sight = Sight(self)
        checkers.note_floor(sight)
        checkers.differs_is_out_of_sync(sight)
        checkers.status_is_true(sight)
        checkers.transactions_are_true(sight)
        checkers.up_to_date_is_answered_for(sight)
        checkers.up_to_date_is_of_now(sight)
        checkers.what_is_told_is_on_the_disk(sight)
        checkers.staged_is_out_of_sync(sight)
        checkers.generations_tell_of_writes(sight)
        for node in self.secondaries:
            self._check_commit(node)
        self._check_waits()
        self.marks.look()
        op = None if self.healing else next(self._ops, None)
        if op is None:
            self._heal()
            return
        self.rng.seed(op.seed)
        self._advance(op.seconds, op)
        getattr(self, f"do_{op.kind}")()

    def _advance(self, seconds: float, op: Op | None) -> None:
        if self.verbose and op is not None:
            self._say(f"-- {op}")
        self.clock.run(seconds)
        for node in self.secondaries:
            node.pump(self.rng.choice((0, 2, 6, 20)))

    def _heal(self) -> None:
        """No fault any more: how long until both sides are the same?"""
        if not self.healing:
            self._say("no more faults")
            self.healing = True
            self.rng.seed(self.plan.seed)
            self.kernel.odds = Odds(zeroes=0, slow=0, breath=0)
            self.calm()
            self._heal_until = self.clock.now + HEAL_S
        loop = self.primary.loop
        if loop is not None and any(brain.mode.rests for brain in loop.volume.brains):
            self.primary.ask("resume")
        due = self.clock.next_due()
        self.clock.run(0.2 if due is None or due > self.clock.now + 0.2 else max(due - self.clock.now, 0.005))
        for node in self.secondaries:
            node.pump(200)
        if self._rested():
            checkers.all_is_one(self)
            self.over = not self.switchover.wanted
            if self.over:
                return
        self._heal_steps += 1
        if self.clock.now > self._heal_until or self._heal_steps > HEAL_STEPS:
            waits = [brain.status(self.clock.now).waiting_for for brain in loop.volume.brains] if loop else ""
            where = f"{checkers.words_of(self)}: {waits}"
            raise Violation("everything converges", f"not at rest after {HEAL_S} s without a fault, in {where}")

    def calm(self) -> None:
        """No fault any more."""
        self.frozen_until = 0.0
        for node in self.secondaries:
            node.link.held_until, node.link.damage = [0.0, 0.0], [0, 0]
            node.frozen_until = 0.0
            node.flaws.bad.clear()
        for machine in (self.primary.machine, *(node.machine for node in self.secondaries)):
            machine.no_room = machine.trouble = False
            machine.fuse = None
        SimReader.read_error, SimReader.bad = 0.0, frozenset()

    def _rested(self) -> bool:
        loop = self.primary.loop
        if loop is None or self.kernel.flying or self.kernel.ring or loop.volume.events:
            return False
        return all(node.up and self._follows(node, peer.brain) for node, peer in self.primary.peers())

    def _follows(self, node: SecondaryNode, brain: Primary) -> bool:
        done = brain.mode is Mode.NORMAL and not len(brain.state.unsettled) and brain.state.in_flight.empty
        done = done and not len(brain.state.unreadable) and not brain.state.unwritten.waits
        done = done and not brain.state.replica.unwritable.total() and brain.state.replica.state != "inconsistent"
        there = node.engine.brain.peer is not None and node.engine.brain.drained and not node.engine.brain.problem
        # A connection that is dead at one end alone takes a name along that the primary has sent; the next one brings it.
        named = node.engine.brain.record.generations.current == brain.state.generations.current
        return done and there and named and brain.state.acknowledged == brain.state.sequence

    # --- looking ------------------------------------------------------------------------------------------
    def raise_floor(self, node: SecondaryNode, era: Era, order: int) -> None:
        floor_era, floor = self.floors[node.number]
        if era is not floor_era or order > floor:
            self.floors[node.number] = (era, order)

    def _check_waits(self) -> None:
        for wait in list(self._waits):
            request, nodes, era, ended = wait
            if request.done.is_set():
                self._waits.remove(wait)
                # One that was removed and added again is not the one that was meant.
                still = [node for node, peer in self.primary.peers() if nodes.get(node.number) is peer]
                if request.error is None:
                    checkers.wait_was_kept(self, still, era, ended)

    def _check_commit(self, node: SecondaryNode) -> None:
        """The first moment of a new image is when it would show that it is no moment of the primary at all."""
        if node.up:
            session = node.engine.brain.session
            last = self._committed.get(node.number, (0, 0))[1] if session is None else session.committed
            committed = (node.engine.brain.keeper.epoch, last)
            if committed != self._committed.get(node.number) and committed[1]:
                checkers.image_is_a_moment(self, node.after_a_crash(power=False), "right after a COMMIT")
            self._committed[node.number] = committed

    def _note_boot(self, node: SecondaryNode) -> None:
        if self.verbose:
            record = node.engine.brain.record
            self._say(
                f"{node.name} starts: consistent {record.consistent}, sequence {node.engine.brain.keeper.sequence}"
            )
        checkers.image_is_a_moment(self, node.after_a_crash(power=False), "after a start of the secondary")

    def _trace(self, event: object, effects: list[object]) -> None:
        name = type(event).__name__
        if name not in ("Tick", "Outbound", "DiskQuiet") or effects:
            self._say(f"   {event}")
        for effect in effects:
            self._say(f"      -> {effect}")

    def _say(self, line: str) -> None:
        if self.verbose:
            self.log.append(f"{self.clock.now:9.4f} {line}"[:400])

    # --- its faults ---------------------------------------------------------------------------------------
    def do_switchover(self) -> None:
        self.switchover.wanted = True

    def do_work(self) -> None:
        if self.switchover.unmounted:
            return
        rate = self.plan.shape.write_rate
        for _ in range(int(self.rng.random() * 2 * rate + self.rng.random())):
            self.kernel.random_write()

    def do_burst(self) -> None:
        if self.switchover.unmounted:
            return
        for _ in range(self.rng.randint(5, 40)):
            self.kernel.random_write()

    def do_idle(self) -> None:
        self._advance(self.rng.random() ** 2 * 8, None)
        for node in self.secondaries:
            node.pump(50)

    @property
    def one(self) -> SecondaryNode:
        """Whom it hits."""
        return self.rng.choice(self.secondaries)

    def do_look(self) -> None:
        node = self.one
        if node.up:
            power = self.rng.random() < 0.7
            copy = node.after_a_crash(power)
            checkers.image_is_a_moment(
                self, copy, "a loss of power at the secondary" if power else "a kill of the secondary"
            )

    def do_cut(self) -> None:
        self.one.link.cut("both")

    def do_half_cut(self) -> None:
        self.one.link.cut("primary")

    def do_lose_peer(self) -> None:
        self.one.link.cut("none")

    def do_hold(self) -> None:
        until = self.clock.now + self.rng.random() ** 2 * 30
        self.one.link.held_until = [until, until]

    def do_hold_one_way(self) -> None:
        self.one.link.held_until[self.rng.randrange(2)] = self.clock.now + self.rng.random() ** 2 * 30

    def do_damage(self) -> None:
        self.one.link.damage[self.rng.randrange(2)] += 1

    def do_back_up(self) -> None:
        self.back_up(self.one)

    def back_up(self, node: SecondaryNode) -> None:
        if node.noticed == node.put_backs and not node.machine.dead:
            node.back_up(power=self.rng.random() < 0.5)
            self._backup_floors[node.number] = self.floors[node.number]

    def do_put_back(self) -> None:
        self.put_back(self.one)

    def put_back(self, node: SecondaryNode) -> bool:
        """Whether it was. Not when the primary dies before it can know, or has died, and what it knew was not written down."""
        if node.backup is None or self.primary.loop is None or self.primary.machine.fuse is not None:
            return False
        brains = [peer.brain for other, peer in self.primary.peers() if other is node]
        if any(brain.state.replica.progress < max(node.told.values(), default=0) for brain in brains):
            return False  # docs/reference/limits.md: killed within the five seconds in which it records that
        node.put_back()
        # What has left the map on disk since then left it when the progress was written down.
        node.covered = all(brain.resync is not None and brain.resync.map_on_disk for brain in brains)
        node.restart_at = self.clock.now + self.rng.random() * 2
        self.floors[node.number] = self._backup_floors[node.number]
        return True

    @property
    def _primary_must_live(self) -> bool:
        """It alone knows that a secondary was put back: what is written down of how far that was is some seconds old."""
        unnoticed = {node.address for node in self.secondaries if node.noticed != node.put_backs and not node.covered}
        return any(r.address in unnoticed and not checkers.would_be_noticed(self, r) for r in self.primary.records())

    def do_kill_primary(self) -> None:
        if self._primary_must_live:
            return
        self._power, self._restart_seconds = False, self.rng.random() * 2
        # Left out: a kill while a completion that the kernel never showed has not been noticed yet.
        if not self.kernel.unshown:
            self.primary.machine.fuse = int(self.rng.random() ** 2 * 60)

    def do_power_primary(self) -> None:
        if self._primary_must_live:
            return
        self._power, self._restart_seconds = True, self.rng.random() * 2
        self.primary.machine.fuse = int(self.rng.random() ** 2 * 60)

    def do_stop_primary(self) -> None:
        self._restart_seconds = self.rng.random() * 3
        if self.primary.loop is not None and not self.kernel.unshown and not self._primary_must_live:
            self.primary.loop.stop()

    def do_down_primary(self) -> None:
        self._restart_seconds = self.rng.random() * 3
        if self.primary.loop is not None and not self._primary_must_live:
            self.primary.ask("down")

    def do_kill_secondary(self) -> None:
        self.one.machine.fuse = int(self.rng.random() ** 2 * 40)

    def do_freeze_primary(self) -> None:
        self.frozen_until = self.clock.now + self.rng.random() ** 2 * 10

    def do_freeze_secondary(self) -> None:
        self.one.frozen_until = self.clock.now + self.rng.random() ** 2 * 30

    def do_full_secondary(self) -> None:
        self._for_a_while(self.one.machine, "no_room")

    def do_bad_secondary(self) -> None:
        self._for_a_while(self.one.machine, "trouble")

    def do_bad_target(self) -> None:
        """Blocks of a target cannot be written, until the next time."""
        flaws = self.one.flaws
        if flaws.bad:
            flaws.bad.clear()
            return
        count = -(-self.geometry.size_bytes // BAD_BLOCK_BYTES)
        flaws.bad.update(self.rng.sample(range(count), self.rng.randint(1, min(2, count))))
        flaws.tears = self.rng.random() < 0.5

    def do_full_primary(self) -> None:
        self._for_a_while(self.primary.machine, "no_room")

    def _for_a_while(self, machine: object, what: str) -> None:
        setattr(machine, what, True)
        self.clock.after(self.rng.random() ** 2 * 15, lambda: setattr(machine, what, False))

    def do_bad_reads(self) -> None:
        """Whole reads fail, or single blocks cannot be read, until the next time."""
        before = SimReader.read_error or SimReader.bad
        SimReader.read_error, SimReader.bad = 0.0, frozenset()
        if before:
            return
        if self.rng.random() < 0.5:
            SimReader.read_error = 0.2
            return
        blocks = range(self.geometry.block_count)
        SimReader.bad = frozenset(self.rng.sample(blocks, self.rng.randint(1, min(4, len(blocks)))))
        self.unread[sorted(SimReader.bad)] = True

    def do_wait(self) -> None:
        peers = self.primary.peers()
        if peers:
            nodes, words = {node.number: peer for node, peer in peers}, {}
            if len(peers) > 1 and self.rng.random() < 0.5:
                node, peer = self.rng.choice(peers)
                nodes, words = {node.number: peer}, {"secondary": node.address}
            self._waits.append((self.primary.ask("wait", **words), nodes, self.kernel.era, self.kernel.completed))

    def do_mark(self) -> None:
        self.marks.ask()

    def do_pause(self) -> None:
        peers = self.primary.peers()
        if peers:
            node, peer = self.rng.choice(peers)
            self.primary.ask("resume" if peer.brain.mode.rests else "pause", secondary=node.address)

    def do_add(self) -> None:
        loop, known = self.primary.loop, {record.address for record in self.primary.records()}
        others = [node for node in self.secondaries if node.address not in known]
        if loop is not None and others:
            self.primary.ask("add", secondary=self.rng.choice(others).address)

    def do_remove(self) -> None:
        peers = self.primary.peers()
        if len(peers) > 1:
            # One that follows is the one with most to be wrong about afterwards.
            following = [(node, peer) for node, peer in peers if peer.brain.mode is Mode.NORMAL]
            node, _ = self.rng.choice(following or peers)
            self.primary.ask("remove", secondary=node.address)

    def do_flush(self) -> None:
        self.kernel.disk.sync()


def play(plan: Plan, verbose: bool = False) -> World:
    """Play a plan; the world when it went well. Raises what went wrong."""
    world = World(plan, verbose)
    world.play()
    return world
