"""The primary's one loop: ring and sockets in, the brain in the middle, its effects out."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from dataclasses import replace
from typing import Any

from pydbt.controller import control
from pydbt.controller.assurance import Assurance
from pydbt.controller.epoch_shell import EpochShell
from pydbt.controller.handshake import Refused, hello_of
from pydbt.controller.log_limit import LogLimit
from pydbt.controller.options import PrimaryOptions
from pydbt.controller.peer_shell import PeerShell
from pydbt.controller.primary_status import primary_status
from pydbt.controller.requests import Gone, Request
from pydbt.controller.used_blocks import scan
from pydbt.core import primary_events as ev
from pydbt.core.dirty_map import DirtyMap
from pydbt.core.errors import DeviceError, PeerError, PydbtError, StateError, TimedOut
from pydbt.core.frames import Hello
from pydbt.core.generations import Generations
from pydbt.core.primary import Primary
from pydbt.core.primary_config import PrimaryConfig
from pydbt.device.block import DirectReader
from pydbt.device.clean import clean_marker
from pydbt.device.sysfs import BlockDevice, boot_id
from pydbt.kernel.capture import Capture
from pydbt.network.tls import Secure
from pydbt.store.map_file import MAP_FILE_NAME, MapHeader, map_digest, save_map
from pydbt.store.volume_state import SyncPhase, VolumeState, save_state

# How long to sleep between looks at the ring: short while writes come, longer when the disk is idle.
SHORTEST_POLL_S = 0.001
LONGEST_POLL_S = 0.02
RECORDS_A_LOOK = 16384
CHECK_INTERVAL_S = 1.0
IDLE_LOOK_S = 0.02
SNAPSHOT_INTERVAL_S = 5.0
# When it goes down it waits so long for a moment in which all that was written is on the secondary.
RETIRE_SECONDS = 1.0
# The wait of the loop itself; commands' are numbered from 1.
LAST_EPOCH_TOKEN = 0

_log = logging.getLogger("pydbt")


class PrimaryLoop:
    """Owns everything of one volume while it runs. ``run`` blocks; ``stop`` and ``answer`` come from outside."""

    def __init__(
        self,
        options: PrimaryOptions,
        device: BlockDevice,
        state: VolumeState,
        config: PrimaryConfig,
        capture: Capture,
        reader: DirectReader,
        pending: DirtyMap | None,
        secure: Secure | None = None,
    ) -> None:
        self.options, self.device, self.state, self.config = options, device, state, config
        self.capture = capture
        self.brain = Primary(config, time.monotonic())
        if pending is not None:
            self.brain.tracker.pending.merge(pending)
        self._reader = reader
        self._inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._events: deque[ev.Event] = deque()
        self.peer = PeerShell(options, secure, capture, reader, config.geometry, self._hello, self._inbox.put)
        self.epochs = EpochShell(device, state, capture.producer_position, self._inbox.put)
        self._waits: dict[int, Request] = {}
        self._next_token = 1
        self._stopping = False
        self._down: Request | None = None
        self._fatal: PydbtError | None = None
        self._scanned_whole: bool | None = None
        self.assurance = Assurance(self)
        self._next_check = self._next_snapshot = 0.0
        self._last_loss = -1
        self._next_idle_look = 0.0
        self._log_limit = LogLimit(_log)
        self.detached = self.unsaved = False
        self.in_sync_at: float | None = None
        self.remembered_in_sync: str | None = None

    # --- from other threads -------------------------------------------------------------------------------
    def stop(self) -> None:
        """End the loop soon; tracking goes on in the kernel."""
        self._stopping = True
        self._inbox.put(None)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Serve one command, from a thread of the control socket."""
        pending = Request(str(request["command"]), threading.Event(), arguments=request)
        self._inbox.put(pending)
        timeout = request.get("timeout")
        if not pending.done.wait(timeout if pending.command == "wait" else 60.0):
            self._inbox.put(Gone(pending))
            raise TimedOut(f"not every write was durable on the secondary within {timeout} s")
        if pending.error is not None:
            raise pending.error
        return pending.result or {}

    # --- the loop -----------------------------------------------------------------------------------------
    def run(self) -> int:
        """Until stopped, taken down, or the source is gone."""
        poll = SHORTEST_POLL_S
        try:
            while not self._stopping and self._fatal is None:
                busy = self._drain()
                busy |= self._take_inbox(0.0 if busy else poll)
                now = time.monotonic()
                self._events.append(self.peer.outbound())
                if now >= self.brain.deadline():
                    self._events.append(ev.Tick())
                self._look_for_idle_disk()
                self._process()
                self._note_in_sync(now)
                if now >= self._next_check:
                    self._check(now)
                poll = SHORTEST_POLL_S if busy else min(poll * 2, LONGEST_POLL_S)
        finally:
            self._finish()
        if self._fatal is not None:
            raise self._fatal
        return 0

    def _hello(self) -> Hello:
        return hello_of(self.state, self.device.logical_block_bytes, self.config.epoch)

    def _look_for_idle_disk(self) -> None:
        """While the brain counts writes in flight, or does not know, tell it when the kernel counts none."""
        in_flight, now = self.brain.in_flight, time.monotonic()
        if (in_flight.certain and in_flight.empty) or now < self._next_idle_look:
            return
        self._next_idle_look = now + IDLE_LOOK_S
        try:
            if self.device.in_flight_writes() == 0:
                self._events.append(ev.DiskQuiet(self.capture.producer_position()))
        except DeviceError:
            pass  # gone: the next check says so

    def _note_in_sync(self, now: float) -> None:
        if self.brain.mode == "normal":
            oldest = self.brain.queue.oldest_arrival()
            self.in_sync_at = now if oldest is None else oldest

    def _drain(self) -> bool:
        """One batch of records into the queue of events; True when there were any."""
        records = self.capture.drain(RECORDS_A_LOOK)
        lost = self.capture.counters().lost
        if len(records) or lost != self._last_loss:
            self._last_loss = lost
            self._events.append(ev.Captured(records, self.capture.consumer_position(), lost))
        return len(records) > 0

    def _drain_to(self, position: int) -> None:
        """Everything up to a ring position; a record still being filled in is waited for."""
        self._drain()
        while self.capture.consumer_position() < position:
            time.sleep(0)
            self._drain()

    def _take_inbox(self, timeout: float) -> bool:
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
                    self._command(item)
                case Gone(request=request):
                    self._forget_wait(request)
                case (int() as attempt, event):
                    try:
                        self._events.extend(self.peer.happened(attempt, event))
                    except Refused as refusal:
                        self._fatal = refusal
                case _:
                    self._events.append(item)

    def _process(self) -> None:
        while self._events:
            effects = self.brain.handle(self._events.popleft(), time.monotonic())
            answers: list[ev.Event] = []
            for effect in effects:
                try:
                    self._carry_out(effect, answers)
                except PeerError as error:
                    self.peer.disconnect(str(error), farewell=False)
                    answers.append(ev.Disconnected(str(error)))
            self._events.extendleft(reversed(answers))
        if self.assurance.taints_changed():
            self.assurance.keep()

    def take(self, event: ev.Event) -> None:
        """Give the brain an event now, behind those that wait. Not from within an effect."""
        self._events.append(event)
        self._process()

    # --- effects ------------------------------------------------------------------------------------------
    def _carry_out(self, effect: ev.Effect, answers: list[ev.Event]) -> None:
        if self.peer.carry_out(effect) or self.epochs.carry_out(effect):
            return
        match effect:
            case ev.ReleasePayload(records=records):
                self.capture.release(records)
            case ev.SetPayload(on=on):
                self.capture.set_payload(on)
                if on:
                    answers.append(ev.PayloadArmed(self._catch_up(answers)))
            case ev.TakeQuiet(flip=flip):
                if flip:
                    self.capture.flip()
                position = self._catch_up(answers)
                answers.append(ev.QuietTaken(self.capture.quiet_words(), position, flip))
            case ev.ZeroQuiet():
                self.capture.zero_quiet()
            case ev.Persist(zero_quiet=zero):
                answers.append(self._persist(zero))
            case ev.ScanUsed():
                used, self._scanned_whole = scan(self.device, self.config.geometry, self.config.scan_whole)
                answers.append(used)
            case ev.RememberReplica():
                self._remember(effect)
            case ev.KeepGenerations(generations=generations):
                self._keep_generations(generations)
            case ev.AnswerWait(token=token):
                request = self._waits.pop(token, None)
                if request is not None:
                    request.answer({"sequence": self.brain.acknowledged})
            case ev.VerifyEnded():
                self.assurance.ended(effect)
            case ev.Log(level=level, message=message):
                self._log_limit.log(getattr(logging, level.upper()), message)

    def _catch_up(self, answers: list[ev.Event]) -> int:
        """Deliver every record that lies before now ahead of the answer; returns the position reached."""
        # Records that wait in the queue of events come first: nothing may overtake them.
        answers.extend(event for event in self._events if isinstance(event, ev.Captured))
        waiting = deque(event for event in self._events if not isinstance(event, ev.Captured))
        self._events = deque()
        self._drain_to(self.capture.producer_position())
        answers.extend(self._events)
        self._events = waiting
        return self.capture.consumer_position()

    def _persist(self, zero_quiet: bool) -> ev.Persisted:
        try:
            self._write_map()
        except StateError as error:
            return ev.Persisted(zeroed=False, error=str(error))
        if zero_quiet:
            self.capture.zero_quiet()
        return ev.Persisted(zeroed=zero_quiet)

    def _remember(self, effect: ev.RememberReplica) -> None:
        phase = SyncPhase.REPLICATING if effect.in_sync else self.state.phase
        scanned = self._scanned_whole
        whole = self.state.compared_whole if scanned is None else scanned and effect.in_sync
        later = [self.config.epoch] if effect.in_sync and effect.epoch == self.config.epoch else self.state.later_epochs
        state = replace(self.state, replica=effect.replica, epoch=effect.epoch, sequence=effect.sequence,
                             phase=phase, compared_whole=whole, later_epochs=later)
        try:
            self.save(state)
        except StateError as error:
            _log.error("%s", error)

    def _keep_generations(self, generations: Generations) -> None:
        """PeerError when they cannot be written down: no image may be handed over then."""
        try:
            self.save(replace(self.state, generations=generations))
        except StateError as error:
            raise PeerError(str(error)) from None

    def save(self, state: VolumeState) -> None:
        """Write down what is known. StateError when it cannot be: tried again soon, and before a map that counts on it is."""
        self.state, self.unsaved = state, True
        save_state(self.options.state_dir, state)
        self.unsaved = False

    # --- commands -----------------------------------------------------------------------------------------
    def _command(self, request: Request) -> None:
        match request.command:
            case "status":
                request.answer(self.status())
            case "wait":
                token, self._next_token = self._next_token, self._next_token + 1
                self._waits[token] = request
                self._events.append(ev.WaitAsked(token, self.capture.producer_position()))
            case "pause":
                self._events.append(ev.PauseAsked())
                self._process()
                request.answer(self.status())
            case "resume":
                self._events.append(ev.ResumeAsked())
                self._process()
                request.answer(self.status())
            case "verify":
                try:
                    request.answer(self.assurance.verify(request.arguments))
                except PydbtError as error:
                    request.fail(error)
            case "down":
                self._down = request
                self._stopping = True
            case other:
                request.fail(PydbtError(f"a controller knows no command {other!r}"))

    def _forget_wait(self, request: Request) -> None:
        for token in [token for token, waiting in self._waits.items() if waiting is request]:
            del self._waits[token]
            self._events.append(ev.WaitGone(token))

    def status(self) -> dict[str, Any]:
        """The one report every view is made of."""
        return primary_status(self)

    # --- watching and ending ------------------------------------------------------------------------------
    def _check(self, now: float) -> None:
        self._next_check = now + CHECK_INTERVAL_S
        try:
            self._reader.check()
        except DeviceError as error:
            self._fatal = error
            return
        self._look(now)
        self.assurance.advance(now)
        if now >= self._next_snapshot:
            self._next_snapshot = now + SNAPSHOT_INTERVAL_S
            self._snapshot()
            self.assurance.keep()
        if self.options.report is not None:
            self.options.report(self.status())

    def _look(self, now: float) -> None:
        with contextlib.suppress(DeviceError):  # gone: the next check says so
            self._events.extend(self.assurance.look(now))

    def _snapshot(self) -> None:
        with contextlib.suppress(StateError):  # the map's own failure is told; this is for people only
            control.write_snapshot(self.options.state_dir, self.status())

    def _finish(self) -> None:
        """Stop cleanly: say goodbye, write the maps, and detach if taken down."""
        for request in self._waits.values():
            request.fail(PydbtError("the controller was stopped before every write was durable on the secondary"))
        gone = isinstance(self._fatal, DeviceError)
        in_sync = self._drain_stream() if self._down is not None and not gone else False
        self._events.append(ev.PauseAsked("stopped"))
        self._process()
        self.epochs.close()
        self.peer.close()
        self._snapshot()
        try:
            if self._down is not None or gone:
                self._detach(gone)
            else:
                self._write_map()
        except StateError as error:
            if self._down is None:
                _log.error("%s", error)
            else:
                self._down.fail(error)
        if self._down is not None:
            self._down.answer({"detached": self.detached, "in_sync": in_sync})
        while not self._inbox.empty():
            if isinstance(item := self._inbox.get_nowait(), Request):
                item.fail(PydbtError("the controller was stopped"))

    def _drain_stream(self, seconds: float = 10.0) -> bool:
        """Before going down in normal mode, let what is captured reach the secondary. True when it did.

        Then the bits of what has reached it are taken back, if the writers leave a moment for that: the map that stays
        names nothing, and says so to whoever asks later whether the secondary has all of this volume.
        """
        if self.brain.epochs.on:
            return self._last_epoch(seconds)
        until, retire_until = time.monotonic() + seconds, 0.0
        target = self.capture.producer_position()
        while time.monotonic() < until and self.brain.mode == "normal":
            self._drain()
            self._take_inbox(SHORTEST_POLL_S)
            self._events.append(self.peer.outbound())
            self._process()
            reached = self.brain.position >= target and self.brain.acknowledged >= self.brain.sequence
            if reached and not len(self.brain.settler):
                now = time.monotonic()
                retire_until = retire_until or now + RETIRE_SECONDS
                if now > retire_until or not any(self.capture.dirty_counts()):
                    return True
                self.brain.next_retire = now
        return bool(retire_until)

    def _last_epoch(self, seconds: float) -> bool:
        """Before going down with addresses only: an epoch of now, and another one of what a freeze itself writes at its end."""
        until, epochs = time.monotonic() + seconds, self.brain.epochs
        self._events.append(ev.WaitAsked(LAST_EPOCH_TOKEN, self.capture.producer_position()))
        while (now := time.monotonic()) < until and self.brain.mode == "epochs":
            self._drain()
            self._take_inbox(SHORTEST_POLL_S)
            self._look_for_idle_disk()
            self._events.append(self.peer.outbound())
            self._process()
            if not epochs.waits and not any(self.capture.dirty_counts()) and epochs.in_sync_at(now) == now:
                return True
            if not epochs.waits:
                epochs.add(LAST_EPOCH_TOKEN, 0)
        return False

    def _detach(self, gone: bool) -> None:
        """Write down everything the kernel's bitmaps hold, then take the programs away. StateError: they stay.

        The device's own counters are read first: a write after that moment changes them, and one before it is
        in the bitmaps. So the next start knows whether the maps still tell everything.
        """
        self._look(time.monotonic())
        self._process()
        trusted = not gone and self.brain.scanned and not self.brain.taints
        marker = clean_marker(self.device, self._reader) if trusted else None
        pending = self.brain.tracker.pending
        # Nothing is zeroed: if the map cannot be written the programs stay, and the next controller reads these bits.
        pending.merge_words(self.capture.quiet_words())
        self.capture.flip()
        pending.merge_words(self.capture.quiet_words())
        self._write_map()
        if marker is not None:
            marker["maps"] = {MAP_FILE_NAME: map_digest(self.options.state_dir / MAP_FILE_NAME)}
        self.capture.detach()
        self.detached = True
        self.save(replace(self.state, clean=marker, boot_id=boot_id()))

    def _write_map(self) -> None:
        """The maps to disk; StateError when they cannot be written. Before the scan there is nothing to trust."""
        if self.brain.scanned:
            if self.unsaved:
                self.save(self.state)
            header = MapHeader(self.state.uuid, self.config.geometry, self.config.epoch, self.brain.acknowledged)
            save_map(self.options.state_dir / MAP_FILE_NAME, header, self.brain.unsynchronized_map())
