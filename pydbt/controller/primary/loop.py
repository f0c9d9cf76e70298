"""The primary's one loop: ring and sockets in, the brains of its secondaries in the middle, their effects out."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import replace
from math import inf
from typing import Any, assert_never

from pydbt.controller import control
from pydbt.controller.control import SAVE_STATUS_INTERVAL_S
from pydbt.controller.event_log import events_of_primary
from pydbt.controller.expiry import tell_expiry
from pydbt.controller.primary.below_watch import KEY, BelowWatch
from pydbt.controller.primary.commands import AtOnce, Commands
from pydbt.controller.primary.divergences import Divergences
from pydbt.controller.primary.era_checkpoints import EraCheckpoints
from pydbt.controller.primary.feed import Feed
from pydbt.controller.primary.handshake import Refused
from pydbt.controller.primary.inbox import Heard, Looked, Posted, Reload, Wake
from pydbt.controller.primary.io_watch import IoWatch
from pydbt.controller.primary.peer import Peer
from pydbt.controller.primary.peer_connection import Attempt
from pydbt.controller.primary.report import VolumeReport
from pydbt.controller.primary.rest import Rest
from pydbt.controller.primary.seen import SeenAnswers
from pydbt.controller.primary.standing import Standings
from pydbt.controller.primary.state_save import SaveEnded
from pydbt.controller.primary.status import volume_report
from pydbt.controller.primary.use_watch import UseWatch
from pydbt.controller.primary.volume import Volume
from pydbt.controller.primary.ways import Ways
from pydbt.controller.primary.writer_watch import WriterWatch
from pydbt.controller.requests import Gone, Request
from pydbt.core.errors import BusyError, DeviceError, PydbtError, StateError, UsageError
from pydbt.core.primary import events as ev
from pydbt.core.primary.handover import Step
from pydbt.core.primary.modes import Mode
from pydbt.core.protocol.frames import Takeover
from pydbt.core.volume.resting import wake_at
from pydbt.device.era import EraLayer

# How long to sleep between looks at the ring: short while writes come, longer when the disk is idle.
SHORTEST_POLL_S = 0.001
LONGEST_POLL_S = 0.02
CHECK_INTERVAL_S = 1.0
RESTING_CHECK_S = 10.0
"""Of a volume at rest: its device may be gone for this long before that is noticed, unless somebody asks for its status."""
LATE_S = 0.5
"""A sleeping volume does together what is due within half a second; so heartbeat and check, each once per second, are one wake. A
secondary takes a heartbeat for missing after three seconds."""

_log = logging.getLogger("pydbt")


class PrimaryLoop:
    """Runs a volume, turn after turn. ``run`` blocks; ``stop`` and ``answer`` come from outside.

    ``layer``: dm-era under the volume, if there is one; ``layer_problem``: why it cannot be relied on. ``ways``: None where the
    heartbeat alone is to find outages. ``below``: None where nobody watches what lies below the volume.
    ``rest``: None where the ring is looked at all the time.
    """

    def __init__(
        self,
        volume: Volume,
        layer: EraLayer | None = None,
        layer_problem: str = "",
        below: BelowWatch | None = None,
    ) -> None:
        self.volume = volume
        self._below, self._use = below, UseWatch(volume.device)
        self.feed = Feed(volume)
        self.checkpoints = EraCheckpoints(volume, self.feed, layer, layer_problem)
        self.standings = Standings(volume)
        self.divergences = Divergences(volume)
        self.seen_answers = SeenAnswers(volume)
        self.io = IoWatch(volume)
        self.event_log = events_of_primary(volume.options)
        self.commands = Commands(volume, self.feed, self.report, self.seen_answers, self._at_once())
        self.writers: WriterWatch | None = None
        self.ways: Ways | None = None
        self.rest: Rest | None = None
        self.fatal: PydbtError | None = None
        self._stopping = self._records = False
        self._next_check = self._next_save = 0.0
        self._checked_at = -inf
        self._modes_and_links: list[tuple[Mode, bool]] = []
        self._saves = (-inf, -inf)  # the last two
        self._status: VolumeReport | None = None  # waits for the disk

    # --- from other threads -------------------------------------------------------------------------------
    def stop(self) -> None:
        """End the loop soon; tracking goes on in the kernel."""
        self._stopping = True
        self.volume.inbox.post(Wake())

    def reload(self) -> None:
        """Read the identity and the revoked keys again soon."""
        self.volume.inbox.post(Reload())

    def answer(self, request: dict[str, Any], gone: control.ClientGone) -> dict[str, Any]:
        """Serve one command, from a thread of the control socket."""
        return self.commands.serve(request, gone)

    def _at_once(self) -> dict[str, AtOnce]:
        def writers(*_: object) -> dict[str, Any]:
            if self.writers is None:
                raise BusyError("the controller has only begun: try again in a moment")
            return self.writers.answer()

        return {
            "events": self.event_log.answer,
            "history": self.event_log.answer,
            "io": lambda *_: self.io.answer(),
            "writers": writers,
        }

    # --- the loop -----------------------------------------------------------------------------------------
    def run(self) -> None:
        """Turn after turn, until stopped, taken down, or ``fatal`` is there: all secondaries refuse, or the source is gone."""
        poll_s = SHORTEST_POLL_S
        while not self.asked_to_end and not self._is_leaving():
            calm_until = self._calm_until()
            slept = poll_s >= LONGEST_POLL_S and self._sleep(calm_until)
            busy = self.turn(0.0 if slept else poll_s)
            if calm_until > time.monotonic():
                busy = self._records  # whatever else comes wakes the sleeper
            poll_s = SHORTEST_POLL_S if busy else min(poll_s * 2, LONGEST_POLL_S)

    def _calm_until(self) -> float:
        """The next moment at which something has to be looked at, if nothing comes; minus infinity: all the time."""
        volume = self.volume
        if self.rest is None or self.commands.handing_over is not None or volume.is_sending:
            return -inf
        deadlines = [volume.fanout.calm_until(), self._next_check]
        if self.ways is not None:
            deadlines.append(self.ways.deadline())
        return wake_at(deadlines, LATE_S)

    def _sleep(self, until: float) -> bool:
        """Until a record, something in the inbox, or this moment comes. False when that is near."""
        seconds = until - time.monotonic()
        if self.rest is None or seconds <= LONGEST_POLL_S:
            return False
        self.rest.wait(seconds, lambda: not self.volume.inbox.empty or self.volume.has_records)
        return True

    @property
    def asked_to_end(self) -> bool:
        """Whether it was stopped or taken down, or cannot go on."""
        return self._stopping or self.commands.down is not None or self.fatal is not None

    def _is_leaving(self) -> bool:
        """Whether a change of places is so far that everything is to be drained. One that is given up is forgotten."""
        change = self.commands.handing_over
        if change is None:
            return False
        change.advance(time.monotonic())
        if change.steps.step is Step.GIVEN_UP:
            change.give_up()
            self.commands.handing_over = None
        return change.ready

    def turn(self, timeout_s: float, *, deadlines: bool = True) -> bool:
        """One round: gather events, feed the brains, carry out effects, answer commands, see to deadlines.

        Without records in the ring it waits for the inbox, ``timeout_s`` at most. True when anything came.
        Without ``deadlines`` nothing new begins: that is for a run that ends.
        """
        volume = self.volume
        volume.options.manager.sign_of_life()
        busy = self._records = volume.drain()
        busy |= self.take_inbox(0.0 if busy else timeout_s)
        now = time.monotonic()
        volume.note_outbound()
        if deadlines and now >= self._tick_at():
            volume.events.append((None, ev.Tick()))
        volume.look_for_idle_disk()
        if deadlines and self.ways is not None:
            self.ways.advance(now)
        self.feed.process()
        self.standings.tell_transactions(now)
        if deadlines and now >= self._next_check:
            self.check(now)
        return busy

    def _tick_at(self) -> float:
        """When the brains have to hear of the time. Where nothing wakes the loop every look tells them."""
        fanout = self.volume.fanout
        return fanout.deadline() if self.rest is None else max(fanout.deadline(), fanout.calm_until())

    def take_inbox(self, timeout_s: float) -> bool:
        """Take everything that was posted, waiting for the first of it; True when there was anything."""
        taken = False
        while (item := self.volume.inbox.take(0.0 if taken else timeout_s)) is not None:
            taken = True
            self._heed(item)
        return taken

    def _heed(self, item: Posted) -> None:
        match item:
            case Wake():
                pass
            case Reload():
                self._reload()
            case Request():
                if self.rest is not None and (now := time.monotonic()) >= self._checked_at + CHECK_INTERVAL_S:
                    self.check_all(now)  # a volume at rest is looked at seldom, and when somebody asks
                self.commands.carry_out(item)
            case Gone(request=request):
                self.commands.forget_wait(request)
            case Looked():
                self._take_look()
            case SaveEnded():
                self.feed.saved(item)
            case Heard(peer=peer, what=what):
                self._hear(peer, what)
            case _ as never:
                assert_never(never)

    def _reload(self) -> None:
        try:
            reasons = {number: peer.connection.reload_identity() for number, peer in self.volume.peers.items()}
        except UsageError as error:
            _log.error("%s; the identity that was read before stays in use", error)
            return
        _log.info("the identity was read again")
        tell_expiry(next(iter(self.volume.peers.values())).connection.secure)
        for number, reason in reasons.items():
            if reason:
                self.volume.events.append((number, self.volume.peers[number].fail(reason)))

    def _hear(self, peer: Peer, what: ev.Event | Attempt) -> None:
        try:
            event = peer.connection.happened(what) if isinstance(what, Attempt) else what
        except Refused as refusal:
            self._refused(peer, refusal)
            return
        if isinstance(event, ev.Received) and isinstance(event.frame, Takeover):
            if self.commands.handing_over is not None:
                self.commands.handing_over.heard(peer, event.frame)
            return
        if isinstance(event, ev.Connected):
            self._next_check = 0.0  # it is told soon who this primary is
        # A removed secondary is not heard by the brain that has got its number since.
        if event is not None and self.volume.peers.get(peer.number) is peer:
            if isinstance(event, ev.Persisted):
                peer.maps.written(event)
            elif isinstance(event, ev.UsedBlocks):
                peer.scanned_whole = event.whole
            self.volume.events.append((peer.number, event))

    def _refused(self, peer: Peer, refusal: Refused) -> None:
        status = next(one for one in self.report().secondaries if one.secondary == peer.address)
        refusal = self.divergences.explained(peer, refusal, status.out_of_sync_bytes, time.monotonic())
        peer.refusal = refusal
        if all(other.refusal is not None for other in self.volume.peers.values()):
            self.fatal = refusal
            return
        _log.error("%s; nothing is sent there before 'controller resume', and the other secondaries go on", refusal)
        self.volume.events.append((peer.number, ev.PauseAsked(str(refusal), Mode.REFUSED)))

    # --- watching -----------------------------------------------------------------------------------------
    def check(self, now: float) -> None:
        """Once per second: where the volume is, for the secondaries; and unless it is at rest, everything else before that."""
        self._next_check = now + CHECK_INTERVAL_S
        if self._has_moved() or now >= self._checked_at + RESTING_CHECK_S or not self._is_at_rest(now):
            self.check_all(now)
        if self.fatal is None:
            self.standings.tell(now)

    def _has_moved(self) -> bool:
        """Whether a secondary came or went, or has another mode, since this was asked last: events tell of it soon."""
        found = [(brain.mode, brain.link.up) for brain in self.volume.brains]
        moved, self._modes_and_links = found != self._modes_and_links, found
        return moved

    def _is_at_rest(self, now: float) -> bool:
        """Whether nothing goes on, and nothing was written since the last status but one was saved: the next look finds the same.

        Two, because a look at what lies below is kept when the one before it has found the same.
        """
        written = self.volume.written_at
        quiet = self._saves[0] > (-inf if written is None else written)
        return quiet and not self.checkpoints.has_layer and self._calm_until() > now

    def check_all(self, now: float) -> None:
        """The source, the audit, what is due, and the status for people."""
        volume = self.volume
        self._checked_at = now
        try:
            volume.reader.check()
        except DeviceError as error:
            self.fatal = error
            return
        self._use.begin(now, lambda: volume.inbox.post(Looked()))
        self._take_use(now)
        if self.fatal is not None:
            return
        volume.audit(now)
        self.feed.process()  # what has been told by the audit is written down together with its taint, and not before
        volume.history_notice = self.event_log.history_problem
        if volume.transactions is not None:
            volume.transactions.advance(now)
            if any(brain.transactions.unknown for brain in volume.brains):
                volume.transactions.read_log(now, lambda: volume.inbox.post(Wake()))
        self.io.note()
        if self.writers is not None:
            self.writers.note(now)
        for peer in list(volume.peers.values()):
            if (asked := peer.verification.advance(now)) is not None:
                self.feed.take(asked, peer.number)
        self.checkpoints.advance(now)
        report: VolumeReport | None = None
        if now >= self._next_save:
            self._next_save = now + SAVE_STATUS_INTERVAL_S
            self._saves = self._saves[1], now
            self.look_below()
            report = self.report()
            self.save_status(report)
            self.divergences.note(now)
            volume.keep()
        exact = report is not None or len(volume.peers) == 1
        told = report or self.report(exact=False)
        self.event_log.look(lambda: told, now, exact=exact)
        if volume.options.report is not None:
            volume.options.report(told)

    def _take_use(self, now: float) -> None:
        use = self._use.take()
        self.volume.note_use(use.swap)
        self.volume.use_notice = self._use.problem(now)
        if use.unseen:
            self.fatal = DeviceError(use.unseen)  # the replica stays what it is, an image of a moment before

    def look_below(self, *, final: bool = False) -> None:
        """Begin to look at what lies below the volume; the end of a run waits a while for the last look."""
        if self._below is None:
            return
        own = any(brain.snapshot_based for brain in self.volume.brains)
        if final:
            self._heed_look(self._below, self._below.look(own_snapshots=own, final=True))
        else:
            self._below.begin(own, lambda: self.volume.inbox.post(Looked()))
        self.volume.below_notice = self._below.problem

    def _take_look(self) -> None:
        self._take_use(time.monotonic())
        if self._below is not None:
            self._heed_look(self._below, self._below.take())
            self.volume.below_notice = self._below.problem

    def _heed_look(self, below: BelowWatch, reason: str) -> None:
        """Taint the volume when its content changed below it; and take down what lies there, for the next start."""
        volume = self.volume
        if reason:
            self.feed.take(ev.Tainted(reason))  # written down before the look that would not show it any more
        more = {**volume.metadata.state.more, KEY: below.kept and below.kept.to_values()}
        if more != volume.metadata.state.more:
            volume.metadata.change(more=more)
            volume.metadata.unsaved = True

    def report(self, *, exact: bool = True) -> VolumeReport:
        """The one report that every view is made of. ``exact``: see ``volume_report``."""
        report = volume_report(self.volume, self.checkpoints, exact=exact)
        if self.writers is None:
            return report
        self.writers.stands(report, time.monotonic())
        attribution = self.writers.told()
        outrun = () if attribution.outrun is None else (attribution.outrun.words,)
        notices = (*report.notices, *outrun)
        return replace(report, attribution=attribution, block_io=self.io.told(), notices=notices)

    def save_status(self, report: VolumeReport) -> None:
        """Have the status kept for people who ask when no controller answers. Of those that wait for the disk the last one is."""
        waits = self._status is not None
        self._status = replace(
            report, attribution=None, block_io=None, notices=self.volume.notices
        )  # who writes, and how, is known while it runs alone
        if not waits:
            self.volume.map_writer.submit(self._write_status)

    def _write_status(self) -> None:
        """In the writer's thread."""
        lasting, self._status = self._status, None
        if lasting is not None:
            with contextlib.suppress(StateError):  # a failure to write the map is logged; this file is for people only
                control.write_saved_status(self.volume.options.state_dir, lasting.to_json())
