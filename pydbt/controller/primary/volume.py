"""A volume that is being replicated: its device, what is captured of it, what is written down, and its secondaries.

Data and mechanical moves. A volume decides nothing, carries out no effect and answers no command.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable

from pydbt.controller.options import PrimaryOptions
from pydbt.controller.primary.auditor import Auditor
from pydbt.controller.primary.block_reader import BlockReader
from pydbt.controller.primary.configuring import Joining
from pydbt.controller.primary.former_address import FormerAddress
from pydbt.controller.primary.handshake import hello_of
from pydbt.controller.primary.holder import Holder
from pydbt.controller.primary.inbox import Heard, Inbox
from pydbt.controller.primary.kept_marks import MARKS_KEY
from pydbt.controller.primary.map_writer import MapWriter
from pydbt.controller.primary.metadata import Metadata
from pydbt.controller.primary.peer import Peer
from pydbt.controller.primary.peer_connection import Attempt, PeerConnection
from pydbt.controller.primary.peer_maps import PeerMaps
from pydbt.controller.primary.transaction_watch import TransactionWatch
from pydbt.controller.primary.verification import VolumeVerification
from pydbt.controller.primary.waits import WaitingRequests
from pydbt.core.errors import DeviceError, PydbtError
from pydbt.core.primary import events as ev
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.config import SavedMaps
from pydbt.core.primary.flight_watch import LONGEST_FLIGHT_S
from pydbt.core.protocol.frames import Hello
from pydbt.core.tracking.memory_watch import MemoryWatch
from pydbt.core.volume.fanout import Fanout
from pydbt.device.block import DirectReader
from pydbt.device.guests import guests_may_run
from pydbt.device.snapshot import Room
from pydbt.device.sysfs import BlockDevice
from pydbt.device.writeout import Writeout
from pydbt.kernel.capture import Capture
from pydbt.network.address import split_address
from pydbt.store.secondary_record import SecondaryRecord

_log = logging.getLogger("pydbt")

RECORDS_A_LOOK = 16384
IDLE_LOOK_S = 0.02
# A program that the kernel did not run leaves nothing in the ring, and is in the kernel's count alone.
COUNT_S = 1.0

# The number of a secondary, or None for the volume.
AddressedEvent = tuple[int | None, ev.VolumeEvent]


class Volume:
    """Called from the loop's thread alone, but for ``inbox.post``.

    ``inherited``: the programs ran before, and their bitmaps may hold bits; ``room``: where snapshots of the volume are;
    ``completed_first``: the volume has write-intent. ``events`` wait for the brains, by secondary. ``sleeps``: the kernel
    wakes the loop, which then tells the brains only what is new.
    """

    def __init__(
        self,
        options: PrimaryOptions,
        device: BlockDevice,
        metadata: Metadata,
        capture: Capture,
        reader: DirectReader,
        *,
        inherited: bool = False,
        room: Room | None = None,
        completed_first: bool = False,
    ) -> None:
        self.options, self.device, self.metadata = options, device, metadata
        self.capture, self.reader, self.geometry = capture, reader, metadata.state.geometry
        self.completed_first = completed_first
        self._room = room or Room(metadata.state.uuid.hex)
        self.inbox = Inbox()
        self.writeout = Writeout(device)
        self.map_writer = MapWriter()
        metadata.write_in(self.map_writer, self.inbox.post)
        self.waits = WaitingRequests()
        self.events: deque[AddressedEvent] = deque()
        self.fanout = Fanout(options.data_ring_bytes, inherited)
        self.fanout.marks.restore(metadata.state.more.get(MARKS_KEY), metadata.state.boot_id)
        self.peers: dict[int, Peer] = {}
        self.auditor = Auditor(device, capture, metadata.state.audit, inherited)
        self.transactions: TransactionWatch | None = None  # None: nobody follows the file system's log
        self.former_address: FormerAddress | None = None  # where an old primary is answered
        self.detached = False
        self.swap_notice = self.guest_notice = self.loop_notice = ""
        self.below_notice = self.use_notice = self.history_notice = ""
        self.memory = MemoryWatch(
            options.watch_memory, possible=capture.memory_watched, needed=capture.payload_available
        )
        capture.watch_memory(self.memory.is_on)
        self.written_at: float | None = None  # when the last write was captured, by the monotonic clock
        self._look: tuple[float, int] | None = None  # a moment, and where the ring ended just after it
        self.drained_at = time.monotonic()
        """The brains have heard, or hear with the next events, of every write that was submitted before this moment."""
        self._flips: deque[float] = deque(maxlen=2)  # the times of the last two flips of the kernel's bitmaps
        self._told: tuple[int, int] | None = None  # the ring position and the loss that the brains have heard of
        self._next_idle_look = self._next_count = self._next_outbound = 0.0
        self.sleeps = False
        self._outbound: dict[int, ev.Outbound] = {}

    @property
    def brains(self) -> list[Primary]:
        """Of all secondaries, in the order of their slots."""
        return [peer.brain for peer in self.peers.values()]

    @property
    def has_records(self) -> bool:
        """Whether a program has taken a place in the ring that was not drained; its record may be a moment away."""
        return self.capture.producer_position() != self.capture.consumer_position()

    @property
    def is_sending(self) -> bool:
        """Whether anything waits to be sent: how far that is has to be looked at."""
        return any(peer.connection.queued_bytes for peer in self.peers.values())

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences for the operator: by what blocks can differ unnoticed, and that state or history cannot be written."""
        problem = self.metadata.problem
        state_notice = f"{problem}; after a kill the next start does not know what has changed since" if problem else ""
        uses = (self.swap_notice, self.guest_notice, self.use_notice, self.below_notice, self.loop_notice)
        found = (state_notice, *uses, self.history_notice)
        return tuple(notice for notice in found if notice)

    # --- secondaries --------------------------------------------------------------------------------------
    def join(self, slot: int, joining: Joining) -> Peer:
        """Replicate to this secondary as well, from here on."""
        maps = SavedMaps(joining.pending, joining.staged, joining.left_out)
        brain = Primary(joining.config, time.monotonic(), maps)
        record = self.metadata.record(slot)

        def post(what: ev.Event | Attempt) -> None:
            self.inbox.post(Heard(peer, what))

        def hello() -> Hello:
            state, generations = self.metadata.state, self.metadata.record(slot).generations
            return hello_of(state, self.device.logical_block_bytes, brain.config.epoch, generations)

        def expected() -> str:
            return self.metadata.record(slot).replica

        address, position = split_address(record.address), self.capture.producer_position
        connection = PeerConnection(self.options, address, joining.secure, self.capture, hello, expected, post)
        blocks = BlockReader(self.reader, self.geometry, position, post)
        holder = Holder(self.device, self.metadata.state, self._room, blocks, position, post)
        verification = VolumeVerification(slot, brain, self.metadata, self.options, self.device)
        on_disk = PeerMaps(slot, brain, self.metadata, self.map_writer, post)
        peer = Peer(slot, brain, self.metadata, on_disk, connection, blocks, holder, verification, joining.since)
        self.peers[slot] = peer
        self.fanout.add(slot, brain)
        self._told = None  # so that it hears where the ring is, also when nothing is written
        return peer

    def record_of(self, address: tuple[str, int]) -> SecondaryRecord | None:
        """The record of the secondary at an address, if there is one."""
        secondaries = self.metadata.state.secondaries
        return next((record for record in secondaries if split_address(record.address) == address), None)

    def lack_of(self, number: int) -> PydbtError:
        """Why a secondary cannot get everything by itself, in one sentence that ends a wait for it."""
        peer, block_bytes = self.peers[number], self.geometry.block_bytes
        if peer.refusal is not None:
            return peer.refusal
        unreadable = peer.brain.state.unreadable.blocks()
        if len(unreadable):
            return DeviceError(
                f"{len(unreadable) * block_bytes} bytes of {self.device.path} cannot be read, the first of them at byte "
                f"{unreadable[0] * block_bytes}: the replica has everything else; write these blocks anew, or bring the disk back"
            )
        unwritable = peer.brain.state.replica.unwritable
        first_byte = min(unwritable.firsts.tolist(), default=0) * block_bytes
        return DeviceError(
            f"{unwritable.total() * block_bytes} bytes of the target of {peer.address} cannot be written, the first of them at "
            f"byte {first_byte}: the secondary has everything else, and keeps that data until its disk takes it "
            "(tried every 16 s); repair that disk, or wait for it with --timeout"
        )

    # --- events in ----------------------------------------------------------------------------------------
    def drain(self) -> bool:
        """One batch of records into the queue of events; True when there were any.

        The ring may also pass over places whose records were lost. The brains hear of its new position then, too: what waits
        for this position would else wait until somebody writes.
        """
        # The moment first: a write between the two lies before the position, and is not promised by the moment.
        now, end = time.monotonic(), self.capture.producer_position()
        look, watch = self._look or (now, end), self.transactions
        was_read = watch is not None and watch.has_read
        if self.sleeps and not was_read and self._told is not None and self._told[0] == end:
            look, self._look, self.drained_at = (now, end), None, now
            if now < self._next_count:
                return False
            self._next_count = now + COUNT_S
        records = self.capture.drain(RECORDS_A_LOOK)
        position, lost = self.capture.consumer_position(), self.capture.lost_count()
        self._look = look
        if position >= look[1]:  # a ring that is never empty is read up to there all the same
            self.drained_at, self._look = look[0], None
        if len(records):
            self.written_at = time.monotonic()
        if len(records) or was_read or (position, lost) != self._told:
            newly_lost, self._told = lost - (self._told or (0, lost))[1], (position, lost)
            ended = watch.captured(records, self.capture.payload, newly_lost) if watch else ()
            renewed = watch is not None and watch.take_renewed()
            read = watch.take_read(self.capture.producer_position, position) if watch else None
            self.events.append((None, ev.Captured(records, position, lost, ended, renewed, read)))
        return len(records) > 0

    def catch_up(self) -> list[AddressedEvent]:
        """Every record that lies before now, for the brains to hear ahead of an answer.

        The ring has been read to ``capture.consumer_position()`` then.
        """
        # Records that wait in the queue of events come first: nothing may overtake them.
        ahead = [item for item in self.events if isinstance(item[1], ev.Captured)]
        waiting = deque(item for item in self.events if not isinstance(item[1], ev.Captured))
        self.events = deque()
        position = self.capture.producer_position()
        self.drain()
        while self.capture.consumer_position() < position:
            time.sleep(0)  # a record is still being filled in
            self.drain()
        ahead.extend(self.events)
        self.events = waiting
        return ahead

    def flip(self) -> None:
        """Swap the kernel's bitmaps."""
        self._flips.append(time.monotonic())
        self.capture.flip()

    def written_within_s(self, now: float) -> float | None:
        """Everything that the kernel's bitmaps name was written in these last seconds; None where that is not known."""
        return round(now - self._flips[0], 1) if len(self._flips) == 2 else None

    def note_outbound(self) -> None:
        """How far the senders are, for the brains. At rest, what a heartbeat has added is told once per second."""
        sent = {peer.number: peer.connection.outbound() for peer in self.peers.values()}
        now = time.monotonic()
        if (
            self.sleeps
            and now < self._next_outbound
            and all(
                (before := self._outbound.get(number)) is not None and before.queued_bytes == item.queued_bytes
                for number, item in sent.items()
            )
        ):
            return
        self._next_outbound = now + COUNT_S
        self.events.extend(item for item in sent.items() if not self.sleeps or item[1] != self._outbound.get(item[0]))
        self._outbound = sent

    def look_for_idle_disk(self) -> None:
        """While a brain counts writes in flight, or is not certain, tell the brains when the kernel counts none.

        A kernel that keeps no counts of the device (``queue/iostats`` is 0) always says none (blk_mq_check_inflight),
        and does not count later what was submitted then.
        """
        now = time.monotonic()
        sure = all(brain.state.in_flight.certain and brain.state.in_flight.empty for brain in self.brains)
        if sure or now < self._next_idle_look:
            return
        self._next_idle_look = now + IDLE_LOOK_S
        with contextlib.suppress(DeviceError):  # gone: the next check of the loop finds it
            if not self.device.counts_io():
                self._next_idle_look = now + LONGEST_FLIGHT_S
            elif self.device.in_flight_writes() == 0:
                self.events.append((None, ev.DiskQuiet(self.capture.producer_position())))

    def audit(self, now: float) -> None:
        """Compare what was captured with what the kernel has counted."""
        with contextlib.suppress(DeviceError):  # gone: the next check of the loop finds it
            self.events.extend((None, event) for event in self.auditor.look(self.brains, now))

    def note_use(self, swap: tuple[str, ...]) -> None:
        """Heed who changes memory while it is written: swap on the volume, and virtual machines. Tell the operator of it."""
        guests = self.memory.asks and guests_may_run()
        self.memory.look(bool(swap) or guests)
        self.capture.watch_memory(self.memory.is_on)
        notice = ""
        if swap:
            words = f"{' and '.join(swap)} is swap on this volume: it changes memory while that is written"
            notice = f"{words}, {self.memory.swap_words()}; move it to another disk"
        self.swap_notice = _told(self.swap_notice, notice)
        self.guest_notice = _told(self.guest_notice, self.memory.guest_notice(guests))

    def note_loops(self, notice: str) -> None:
        """Tell the operator of loop devices by which blocks can differ unnoticed."""
        self.loop_notice = _told(self.loop_notice, notice)

    # --- what lasts ---------------------------------------------------------------------------------------
    def keep(self) -> None:
        """Have it written down what has changed: taints at once, so that no crash makes the volume look better than it is."""
        before = self.metadata.state
        self.note()
        if self.metadata.state != before or self.metadata.unsaved:
            self.metadata.save()

    def keep_marks(self, then: Callable[[str], None]) -> None:
        """Have the marks written down, if they are not; ``then`` is told the error when they are, or cannot be."""
        if self.metadata.on_disk.more.get(MARKS_KEY) == self.fanout.marks.to_values():
            then("")
            return
        self.note()
        self.metadata.save(then)

    def note(self) -> None:
        """Take down what has changed. The state is not written yet."""
        before = self.metadata.state
        more = {**before.more, MARKS_KEY: self.fanout.marks.to_values()} if self.fanout.marks.known else before.more
        self.metadata.change(audit=self.auditor.record, more=more)
        for peer in self.peers.values():
            peer.note()
            peer.maps.keep_grown()

    def write_maps(self) -> None:
        """The maps of all secondaries to disk, behind those on their way. StateError when one cannot be written."""
        self.map_writer.wait()
        for peer in self.peers.values():
            peer.maps.write()


def _told(before: str, notice: str) -> str:
    """A notice, which the log has too when it is new."""
    if notice and notice != before:
        _log.warning("%s", notice)
    return notice
