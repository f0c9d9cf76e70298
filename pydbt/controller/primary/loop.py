"""The primary's one loop: ring and sockets in, the brains of its secondaries in the middle, their effects out."""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections import deque
from typing import Any

from pydbt.controller import control
from pydbt.controller.options import PrimaryOptions
from pydbt.controller.primary.assurance import Assurance
from pydbt.controller.primary.commands import Commands
from pydbt.controller.primary.configuring import Joining
from pydbt.controller.primary.ending import finish
from pydbt.controller.primary.handshake import Refused
from pydbt.controller.primary.kept_state import KeptState
from pydbt.controller.primary.log_limit import LogLimit
from pydbt.controller.primary.peer import Peer
from pydbt.controller.primary.status import primary_status
from pydbt.controller.primary.write_intent import WriteIntent
from pydbt.controller.primary.written_since import WrittenSince
from pydbt.controller.requests import Gone, Request
from pydbt.core.errors import DeviceError, PeerError, PydbtError, StateError
from pydbt.core.primary import events as ev
from pydbt.core.primary.brain import Primary
from pydbt.core.volume.fanout import Fanout
from pydbt.device.block import DirectReader
from pydbt.device.snapshot import Room
from pydbt.device.sysfs import BlockDevice
from pydbt.kernel.capture import Capture

# How long to sleep between looks at the ring: short while writes come, longer when the disk is idle.
SHORTEST_POLL_S = 0.001
LONGEST_POLL_S = 0.02
RECORDS_A_LOOK = 16384
CHECK_INTERVAL_S = 1.0
IDLE_LOOK_S = 0.02
SNAPSHOT_INTERVAL_S = 5.0

_log = logging.getLogger("pydbt")

Addressed = tuple[int | None, ev.Event]


class PrimaryLoop:
    """Owns everything of one volume while it runs. ``run`` blocks; ``stop``, ``post`` and ``answer`` come from outside."""

    def __init__(
        self,
        options: PrimaryOptions,
        device: BlockDevice,
        kept: KeptState,
        joining: dict[int, Joining],
        capture: Capture,
        reader: DirectReader,
        inherited: bool = False,
        written: WrittenSince | None = None,
        room: Room | None = None,
    ) -> None:
        """``joining`` are the secondaries by slot; ``inherited``: the programs ran before, and their bitmaps may hold bits;
        ``written``: what was found of the kernel's write-intent under the volume; ``room``: where snapshots of it are."""
        self.room = room or Room(kept.volume.uuid.hex)
        self.options, self.device, self.kept = options, device, kept
        self.capture, self.reader, self.geometry = capture, reader, kept.volume.geometry
        self._inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.events: deque[Addressed] = deque()
        self.fanout = Fanout(options.data_ring_bytes, inherited)
        self.peers: dict[int, Peer] = {}
        for slot, secondary in joining.items():
            self.join(slot, secondary)
        self.assurance = Assurance(self, inherited)
        self.intent = WriteIntent(self, written and written.layer, written.problem if written else "")
        self.commands = Commands(self)
        self.stopping = False
        self.fatal: PydbtError | None = None
        self._next_check = self._next_snapshot = 0.0
        self._last_loss = -1
        self._next_idle_look = 0.0
        self._log_limit = LogLimit(_log)
        self.detached = False

    @property
    def brains(self) -> list[Primary]:
        """Of all secondaries, in the order of their slots."""
        return [peer.brain for peer in self.peers.values()]

    # --- secondaries --------------------------------------------------------------------------------------
    def join(self, slot: int, secondary: Joining) -> Peer:
        """Replicate to this secondary as well, from here on."""
        brain = Primary(secondary.config, time.monotonic())
        if secondary.pending is not None:
            brain.tracker.pending.merge(secondary.pending)
        peer = self.peers[slot] = Peer(self, slot, brain, secondary)
        self.fanout.add(slot, brain)
        self._last_loss = -1  # so that it hears where the ring is, also when nothing is written
        return peer

    def part(self, peer: Peer) -> None:
        """Give a secondary up, and forget it. StateError when that cannot be written down: it stays, and is paused."""
        self.take(ev.RemoveAsked(), peer.number)
        # As long as it is written down, its map must go on to tell what it lacks.
        self.kept.remove(peer.number)
        del self.peers[peer.number]
        answers = self._carry_out_all(self.fanout.drop(peer.number, time.monotonic()))
        self.events.extendleft(
            reversed(answers)
        )  # only now: what is carried out may have put another queue in its place
        peer.close(wait=False)  # it may be frozen, and the others must not wait for it
        self.process()

    # --- from other threads -------------------------------------------------------------------------------
    def stop(self) -> None:
        """End the loop soon; tracking goes on in the kernel."""
        self.stopping = True
        self._inbox.put(None)

    def post(self, item: object) -> None:
        """Hand something to the loop: a Request, a Gone, or (the Peer, what it has to say)."""
        self._inbox.put(item)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Serve one command, from a thread of the control socket."""
        return self.commands.serve(request)

    # --- the loop -----------------------------------------------------------------------------------------
    def run(self) -> int:
        """Until stopped, taken down, or the source is gone."""
        poll = SHORTEST_POLL_S
        try:
            while not self.stopping and self.fatal is None:
                busy = self.drain()
                busy |= self.take_inbox(0.0 if busy else poll)
                now = time.monotonic()
                self.note_outbound()
                if now >= self.fanout.deadline():
                    self.events.append((None, ev.Tick()))
                self.look_for_idle_disk()
                self.process()
                if now >= self._next_check:
                    self._check(now)
                poll = SHORTEST_POLL_S if busy else min(poll * 2, LONGEST_POLL_S)
        finally:
            finish(self)
        if self.fatal is not None:
            raise self.fatal
        return 0

    def note_outbound(self) -> None:
        """How far the senders are, for the brains."""
        self.events.extend((peer.number, peer.shell.outbound()) for peer in self.peers.values())

    def look_for_idle_disk(self) -> None:
        """While a brain counts writes in flight, or does not know, tell it when the kernel counts none."""
        now = time.monotonic()
        sure = all(brain.in_flight.certain and brain.in_flight.empty for brain in self.brains)
        if sure or now < self._next_idle_look:
            return
        self._next_idle_look = now + IDLE_LOOK_S
        with contextlib.suppress(DeviceError):  # gone: the next check says so
            if self.device.in_flight_writes() == 0:
                self.events.append((None, ev.DiskQuiet(self.capture.producer_position())))

    def drain(self) -> bool:
        """One batch of records into the queue of events; True when there were any."""
        records = self.capture.drain(RECORDS_A_LOOK)
        lost = self.capture.counters().lost
        if len(records) or lost != self._last_loss:
            self._last_loss = lost
            self.events.append((None, ev.Captured(records, self.capture.consumer_position(), lost)))
        return len(records) > 0

    def _drain_to(self, position: int) -> None:
        """Everything up to a ring position; a record still being filled in is waited for."""
        self.drain()
        while self.capture.consumer_position() < position:
            time.sleep(0)
            self.drain()

    def take_inbox(self, timeout: float) -> bool:
        """Take what was posted, waiting for it so long; True when there was anything."""
        taken = False
        while True:
            try:
                item = self._inbox.get(timeout=timeout) if timeout else self._inbox.get_nowait()
            except queue.Empty:
                return taken
            timeout, taken = 0.0, True
            match item:
                case None:
                    pass
                case Request():
                    self.commands.carry_out(item)
                case Gone(request=request):
                    self.commands.forget_wait(request)
                case (Peer() as peer, what):
                    self._heard(peer, what)

    def left_in_inbox(self) -> list[Request]:
        """Commands that nobody will carry out any more."""
        left = []
        while not self._inbox.empty():
            if isinstance(item := self._inbox.get_nowait(), Request):
                left.append(item)
        return left

    def _heard(self, peer: Peer, what: object) -> None:
        try:
            events = peer.shell.heard(what)
            # One that was removed has nothing to say to the brain that has got its number since.
            if self.peers.get(peer.number) is peer:
                self.events.extend((peer.number, event) for event in events)
        except Refused as refusal:
            peer.refusal = refusal
            if all(other.refusal is not None for other in self.peers.values()):
                self.fatal = refusal
                return
            _log.error("%s; nothing is sent there before 'controller resume', and the other secondaries go on", refusal)
            self.events.append((peer.number, ev.PauseAsked(str(refusal))))

    def process(self) -> None:
        """Give the brains every event that waits, and do what they ask for."""
        while self.events:
            number, event = self.events.popleft()
            answers = self._carry_out_all(self.fanout.handle(event, time.monotonic(), number))
            self.events.extendleft(reversed(answers))
        for peer in self.peers.values():
            peer.note_in_sync(time.monotonic())
        if any(peer.taints_changed() for peer in self.peers.values()):
            self.keep()

    def take(self, event: ev.Event, number: int | None = None) -> None:
        """Give the brains an event now, behind those that wait. Not from within an effect."""
        self.events.append((number, event))
        self.process()

    # --- effects ------------------------------------------------------------------------------------------
    def _carry_out_all(self, effects: list[tuple[int | None, ev.Effect]]) -> list[Addressed]:
        answers: list[Addressed] = []
        for number, effect in effects:
            concerned = list(self.peers.values()) if number is None else [self.peers[number]]
            try:
                if number is None or not self.peers[number].carry_out(effect, answers):
                    self._carry_out(number, effect, answers)
            except PeerError as error:
                answers += [(peer.number, peer.fail(error)) for peer in concerned]
        return answers

    def _carry_out(self, number: int | None, effect: ev.Effect, answers: list[Addressed]) -> None:
        match effect:
            case ev.ReleasePayload(records=records):
                self.capture.release(records)
            case ev.SetPayload(on=on):
                self.capture.set_payload(on)
                if on:
                    answers.append((number, ev.PayloadArmed(self._catch_up(answers))))
            case ev.TakeQuiet(flip=flip):
                if flip:
                    self.capture.flip()
                position = self._catch_up(answers)
                answers.append((None, ev.QuietTaken(self.capture.quiet_words(), position, flip)))
            case ev.ZeroQuiet():
                self.capture.zero_quiet()
            case ev.KeepLineage(generations=generations):
                self._keep_lineage(generations)
            case ev.AnswerWait(token=token):
                self.commands.answer_wait(token)
            case ev.Log(level=level, message=message):
                several = number is not None and len(self.peers) > 1
                message = f"{self.peers[number].address}: {message}" if several else message
                self._log_limit.log(getattr(logging, level.upper()), message)

    def _catch_up(self, answers: list[Addressed]) -> int:
        """Deliver every record that lies before now ahead of the answer; returns the position reached."""
        # Records that wait in the queue of events come first: nothing may overtake them.
        answers.extend(item for item in self.events if isinstance(item[1], ev.Captured))
        waiting = deque(item for item in self.events if not isinstance(item[1], ev.Captured))
        self.events = deque()
        self._drain_to(self.capture.producer_position())
        answers.extend(self.events)
        self.events = waiting
        return self.capture.consumer_position()

    def _keep_lineage(self, generations: dict) -> None:
        """PeerError when it cannot be written down: no image may be handed over then."""
        try:
            self.kept.keep_lineage(generations)
        except StateError as error:
            raise PeerError(str(error)) from None

    # --- watching -----------------------------------------------------------------------------------------
    def status(self) -> dict[str, Any]:
        """The one report every view is made of."""
        return primary_status(self)

    def keep(self) -> None:
        """Write down what has changed: taints at once, so that no crash makes the volume look better than it is."""
        before = self.kept.volume
        self.kept.change(audit=self.assurance.record)
        for peer in self.peers.values():
            peer.note()
        if self.kept.volume != before or self.kept.unsaved:
            self.kept.save_if_possible()

    def _check(self, now: float) -> None:
        self._next_check = now + CHECK_INTERVAL_S
        try:
            self.reader.check()
        except DeviceError as error:
            self.fatal = error
            return
        self.look(now)
        for peer in list(self.peers.values()):
            peer.verification.advance(now)
        self.intent.advance(now)
        if now >= self._next_snapshot:
            self._next_snapshot = now + SNAPSHOT_INTERVAL_S
            self.snapshot()
            self.keep()
        if self.options.report is not None:
            self.options.report(self.status())

    def look(self, now: float) -> None:
        """Compare what was seen with what the kernel has counted."""
        with contextlib.suppress(DeviceError):  # gone: the next check says so
            self.events.extend((None, event) for event in self.assurance.look(now))

    def snapshot(self) -> None:
        """Keep the status for people who ask when no controller answers."""
        with contextlib.suppress(StateError):  # the map's own failure is told; this is for people only
            control.write_snapshot(self.options.state_dir, self.status())
