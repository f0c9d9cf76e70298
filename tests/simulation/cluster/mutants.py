"""Known ways to break the core and its shells, each a patch that lasts as long as its block.

They tell what the simulation is worth: each has to be caught by some seed. Every one is named by the rule it breaks.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from unittest.mock import patch

import numpy as np

from pydbt.controller.primary import handing_over
from pydbt.controller.primary.effects import EffectRunner
from pydbt.controller.primary.peer_maps import PeerMaps
from pydbt.controller.primary.volume import Volume
from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.runs import Runs
from pydbt.core.primary import (
    comparison_blocks,
    file_system_transactions,
    gate,
    overview,
    recognition,
    resync,
    settler,
    stream_landing,
)
from pydbt.core.primary import events as ev
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.file_system_transactions import FileSystemTransactions
from pydbt.core.primary.landing import Enter
from pydbt.core.primary.lost_commits import LostCommits
from pydbt.core.primary.modes import Mode, Phase
from pydbt.core.primary.overview import Overview
from pydbt.core.primary.quiet_bitmap import QuietBitmap
from pydbt.core.primary.rename import Ancestry
from pydbt.core.primary.resync import Resync
from pydbt.core.primary.settler import Settler
from pydbt.core.primary.state import State
from pydbt.core.primary.stream_landing import StreamLanding
from pydbt.core.primary.sweep import Sweep
from pydbt.core.primary.taints import Taints
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.generations import Generations
from pydbt.core.protocol.recent import Recent
from pydbt.core.protocol.role import ASKS_ROLE
from pydbt.core.secondary import events as e
from pydbt.core.secondary import keeper, role_answer
from pydbt.core.secondary.brain import Secondary
from pydbt.core.secondary.primary_watch import PrimaryWatch
from pydbt.core.secondary.told_transactions import ToldTransactions
from pydbt.core.tracking.in_flight import InFlight
from pydbt.core.tracking.replica_queue import StreamQueue
from pydbt.core.tracking.tracker import Tracker
from pydbt.core.tracking.unsettled import Unsettled
from pydbt.core.transactions.followed_log import ReadTransaction
from pydbt.core.volume.bitmap_share import BitmapShare
from pydbt.core.volume.fanout import Fanout
from pydbt.core.volume.payload_room import PayloadRoom
from tests.simulation.cluster import mutants_of_marks, mutants_of_saves, mutants_of_the_secondary
from tests.simulation.cluster.kernel import Capture

Mutant = Callable[[], AbstractContextManager]
MUTANTS: dict[str, Mutant] = {}


def instead(name: str, owner: object, attribute: str, made: object) -> None:
    """A mutant that puts something in the place of one attribute."""
    MUTANTS[name] = lambda: patch.object(owner, attribute, made)


def around(name: str, owner: object, attribute: str, changed: Callable) -> None:
    """A mutant whose method gets the right one as its first argument."""
    right = getattr(owner, attribute)
    instead(name, owner, attribute, lambda self, *given, **named: changed(right, self, *given, **named))


# --- the primary ------------------------------------------------------------------------------------------
instead("what was never looked at counts as in sync", Overview, "is_known", True)
instead("a flip without its wait", Capture, "grace", False)
instead("the last sweep before every earlier write has completed", InFlight, "wait_done", property(lambda self: True))
around(
    "a clear on the wrong sequence number", Primary, "durable_through",
    lambda right, self, sequence: right(self, min(sequence + 1, self.state.sequence)),
)  # fmt: skip
around(
    "a bit cleared on the wrong sequence number", Tracker, "acknowledge",
    lambda right, self, sequence: right(self, sequence + 1),
)  # fmt: skip
around(
    "what is sent counts as acknowledged", Primary, "_acknowledged",
    lambda right, self, ack, now: right(self, replace(ack, sequence=self.state.queue.sent_through), now),
)  # fmt: skip


instead(
    "a transaction is told before its commit has completed", file_system_transactions, "_touched",
    lambda extents, waiting: np.zeros(len(waiting), bool),
)  # fmt: skip


instead("what is lost is forgotten with the secondary that saw it", LostCommits, "learn", lambda self, other: None)
instead(
    "a transaction whose commit failed is forgotten", LostCommits, "add", lambda self, named, reason: None,
)  # fmt: skip


def _held_when_sent(right: Callable, self: FileSystemTransactions) -> None:
    acknowledged, self._state.acknowledged = self._state.acknowledged, self._state.queue.sent_through
    right(self)
    self._state.acknowledged = acknowledged


def _held_as_read(right: Callable, self: FileSystemTransactions, read: ReadTransaction) -> None:
    sequence, self._state.sequence = self._state.sequence, self._state.acknowledged
    right(self, read)
    self._state.sequence = sequence


around("a transaction that is read from the disk is held at once", FileSystemTransactions, "_take_read", _held_as_read)
instead(
    "a replica holds a transaction when it is told", ToldTransactions, "reached",
    lambda self, epoch, sequence: setattr(self, "_held", self._newest),
)  # fmt: skip
around("a transaction is held when it is sent", FileSystemTransactions, "advance", _held_when_sent)


def _rest_forgotten(right: Callable, self: Sweep, room: int) -> Runs | None:
    taken = right(self, room)
    if taken is None and len(self._likely.firsts):
        self.pending.clear()
    return taken


around("what is compared first stands for all else", Sweep, "_take_likely", _rest_forgotten)
around(
    "what is likely to differ is not read", Sweep, "_take_likely",
    lambda right, self, room: right(self, room) and None,
)  # fmt: skip


def _only_told(right: Callable, self: recognition.Recognition, told: f.Unwritable | Recent) -> None:
    right(self, told)
    if isinstance(told, Recent):
        self._state.tracker.pending.clear()
        self._state.tracker.pending.set_extents(*Runs.of_blocks(self._state.likely.runs.blocks()))


around("what the secondary got last stands for all else", recognition.Recognition, "told", _only_told)
instead("what is missing needs no heartbeat that was answered", overview, "is_fresh", lambda *given: True)
instead("what is staged counts as in sync", State, "rolled_back", None)
instead("what is written alone gets no new generation", Ancestry, "written_alone", lambda self: None)
instead(
    "only the answer to a COMMIT tells that the secondary may hold a generation",
    Generations,
    "offered",
    lambda self: self,
)


instead(
    "a primary that has been silent for long keeps the next boot of its machine out", PrimaryWatch, "lives",
    lambda self, *_, **__: not self._ended,
)  # fmt: skip
instead(
    "the secondary is told to take over by one that is still the primary", handing_over, "demote", lambda *_, **__: None
)
instead(
    "a side that gives its place away has written down where it listens", handing_over, "save_listen", lambda *_: None
)


def _zeroed_first(right: Callable, self: EffectRunner, number: int | None, effect: ev.Effect) -> list:
    if isinstance(effect, ev.Persist) and effect.zero_quiet:
        self._volume.capture.zero_quiet()
    return right(self, number, effect)


around("the quiet bitmap is zeroed before the map is written", EffectRunner, "_carry_out", _zeroed_first)


def _kept_at_once(self: QuietBitmap) -> None:
    assert self.bits is not None
    self._state.left_out.unsaved, self.bits.left_out_kept = False, True


instead(
    "the quiet bitmap is zeroed before it is on disk that a block is not left out any more",
    QuietBitmap, "keep_left_out", _kept_at_once,
)  # fmt: skip


def _kept_for_all(right: Callable, self: QuietBitmap, error: str, now: float) -> None:
    self._keeping_for = self.bits
    right(self, error, now)


around("what is kept of one flip counts for the flip of another", QuietBitmap, "left_out_kept", _kept_for_all)


def _answered_early(right: Callable, self: PeerMaps, effect: ev.Persist) -> ev.Persisted:
    right(self, effect)
    return ev.Persisted(effect.zero_quiet, "", effect.cover, effect.number)


around("a map counts as written while it is on its way to the disk", PeerMaps, "persist", _answered_early)
around(
    "a small map that has changed is not written",
    DirtyMap,
    "chunks_unlike",
    lambda right, self, other: right(self, other)[1:],
)


def _zero_early(right: Callable, self: Primary, event: ev.QuietTaken, now: float) -> None:
    right(self, event, now)
    if self.quiet.bits is not None and self.quiet.bits.retire_at is not None:
        self.quiet.bits.retire_at = self.state.acknowledged


around("the quiet bitmap is zeroed before its writes are acknowledged", Primary, "_quiet_taken", _zero_early)
instead("the map that is written leaves out what is in transit", Resync, "in_transit", lambda self: [])


def _called_the_same(right: Callable, self: Resync, event: ev.BlocksRead, now: float, **options: bool) -> None:
    if self._state.replica.compares or event.reading not in self.sweep.readings or event.error:
        right(self, event, now, **options)
        return
    self.read_position = max(self.read_position, event.position)
    self.sweep.finish(event.reading)
    self._state.effects.add(ev.DropReading(event.reading))


around("blocks that cannot be compared are called the same", Resync, "read", _called_the_same)


def _answered_alone(self: Taints, runs: Runs, numbers: tuple[int, ...]) -> bool:
    self._answered = frozenset(numbers)
    return not self._state.replica.compares


instead("a taint is answered by a copy of nothing", Taints, "answered_by_copy", _answered_alone)


def _known_free(
    right: Callable, within: Runs, left_out: Runs, used: ev.UsedBlocks, **known: bool
) -> comparison_blocks.ComparisonBlocks:
    return replace(right(within, left_out, used, **known), runs=within.minus(left_out))


instead(
    "a taint's comparison leaves out what was free at the first copy",
    comparison_blocks, "blocks_to_compare", partial(_known_free, comparison_blocks.blocks_to_compare),
)  # fmt: skip


def _known_by_words(right: Callable, self: Taints, reason: str) -> None:
    if reason not in self._state.taints:
        right(self, reason)


around("a second taint of the same words is answered by the comparison of the first", Taints, "add", _known_by_words)


def _no_put_back(right: Callable, self: Sweep) -> list[int]:
    identifiers = list(self.readings)
    self.readings.clear()
    return identifiers


around("in transit dropped on disconnect", Sweep, "abandon", _no_put_back)


def _early_commit(right: Callable, self: StreamLanding, resync: Resync, base: int, now: float) -> Enter:
    self._stage = stream_landing._Read(base, self._state.sequence)
    return Enter(Phase.DRAINING)


around("COMMIT before the last sweep is on the secondary", StreamLanding, "_after_last_read", _early_commit)


def _reset_all(right: Callable, self: Tracker, sequence: int) -> object:
    emptied = right(self, sequence)
    if emptied.firsts.size:
        self.dirty.clear_range(0, self.geometry.block_count)
        self.lists.clear()
    return emptied


around("bits reset at an entry that is not a block's last", Tracker, "acknowledge", _reset_all)
instead("a comparison of settled blocks before the queue is sent", StreamQueue, "all_sent", property(lambda self: True))


def _no_touch(
    right: Callable, self: Settler, report: object, taken: object, written: object, now: float, *since: object
) -> bool:
    return right(self, report, taken, Runs.none(), now, *since)


around("a settled block that is written while it is read", Settler, "mark", _no_touch)


def _touched_is_written(
    right: Callable, taken: object, blocks: np.ndarray, geometry: object
) -> tuple[np.ndarray, np.ndarray]:
    rows = zip(
        *(taken.records[name].tolist() for name in ("sector", "sectors")), taken.last_sequences.tolist(), strict=True
    )
    last = {
        block: sequence for sector, sectors, sequence in rows
        for block in range(sector // geometry.block_sectors, -(-(sector + sectors) // geometry.block_sectors))
    }  # fmt: skip
    found = np.array([block for block in blocks.tolist() if block in last], np.int64)
    return found, np.array([last[block] for block in found.tolist()], np.int64)


MUTANTS["an unsettled block is settled by what is written to a part of it"] = lambda: patch.object(
    settler, "_whole_writes", partial(_touched_is_written, settler._whole_writes)
)


def _settled_all_the_same(
    right: Callable, self: Unsettled, blocks: np.ndarray, sequence: int, now: float, *since: object, **named: bool
) -> None:
    right(self, blocks, sequence, now, *since, **named)
    for block in blocks.tolist():
        if block in self._sent:
            self._anew.pop(block, None)
            self._due.pop(block, None)


around("an unsettled block is settled by a write that something odd befell", Unsettled, "add", _settled_all_the_same)
around(
    "unsettled blocks forgotten when replication halts", Settler, "abandon",
    lambda right, self, pending: right(self, pending.copy()),
)  # fmt: skip
around("the stream is cut before the last read was over", State, "position_reached", lambda right, self, position: True)

MUTANTS["a block that could not be read counts as in sync"] = lambda: patch.object(resync, "set_apart", lambda *_: None)
instead("the quiet bitmap is taken before the records are drained", Volume, "catch_up", lambda self: [])


def _records_alone(right: Callable, self: Volume) -> bool:
    told, waiting = self._told, len(self.events)
    came = bool(right(self))
    if not came and told is not None and self._told is not None and told[1] == self._told[1]:
        while len(self.events) > waiting:
            self.events.pop()
    return came


around("the ring passes over places whose records were lost, and no brain hears of it", Volume, "drain", _records_alone)

# --- a secondary that is put back -------------------------------------------------------------------------


def _unheard(right: Callable, replica: str, position: tuple, said: ev.Connected, *others: object) -> str:
    return right(replica, position, replace(said, progress=None), *others)


MUTANTS["a secondary that went back behind what it had acknowledged is trusted"] = lambda: patch.object(
    recognition, "doubt_about", partial(_unheard, recognition.doubt_about)
)
instead("what is written directly is no progress", keeper, "entry_bytes", lambda entry: 0)

# --- several secondaries ----------------------------------------------------------------------------------


def _released_by_the_first(right: Callable, self: PayloadRoom, peer: int, records: np.ndarray) -> list[np.ndarray]:
    return [records] if peer == min(self._passed) and len(records) else []


around("data is given back before every secondary has sent it", PayloadRoom, "passed", _released_by_the_first)


def _needed_by_all_or_none(right: Callable, self: BitmapShare) -> list[int]:
    needing = right(self)
    return needing if len(needing) == len(self._quiets) else []


around(
    "the quiet bitmap is zeroed before every secondary has what it names",
    BitmapShare,
    "needing",
    _needed_by_all_or_none,
)


def _taken_by_who_asked(right: Callable, self: BitmapShare, event: ev.QuietTaken, tell: Callable) -> None:
    asked = self._taking
    right(self, event, lambda peer, mine: tell(peer, mine) if peer in asked else None)


around("a flip is taken only by the secondary that asked for it", BitmapShare, "taken", _taken_by_who_asked)
instead(
    "a map that stands in for an acknowledgement leaves out what is on its way", QuietBitmap, "cover",
    lambda self: ev.Persist(zero_quiet=True, cover=True, number=self._next_write(True)),
)  # fmt: skip


def _acknowledged_for_all(right: Callable, self: Fanout, event: ev.Event, now: float, peer: int | None = None) -> list:
    if isinstance(event, ev.Received) and isinstance(event.frame, f.Ack):
        for brain in self.brains.values():
            if brain.mode is Mode.NORMAL:
                brain.durable_through(min(event.frame.sequence, brain.state.queue.sent_through))
    return right(self, event, now, peer)


around("one secondary's acknowledgement clears another's bits", Fanout, "handle", _acknowledged_for_all)


def _off_for_all(right: Callable, self: Fanout, number: int, effect: ev.Effect, now: float) -> None:
    if isinstance(effect, ev.SetPayload) and not effect.on:
        self._with_payload.clear()
    right(self, number, effect, now)


around("one that stops has data captured for nobody any more", Fanout, "_take", _off_for_all)
instead(
    "one that follows is not told the volume's new name", Ancestry, "renamed",
    lambda self, name: self._become(self._state.generations.renamed(name, followed=self.followed)),
)  # fmt: skip
around(
    "one that is removed keeps the volume's name", Fanout, "handle",
    lambda right, self, event, now, peer=None:
        right(self, ev.PauseAsked() if isinstance(event, ev.RemoveAsked) else event, now, peer),
)  # fmt: skip

# --- the gate ---------------------------------------------------------------------------------------------


def _one_is_enough(right: Callable, answers: list, policy: object, waited_s: float) -> object:
    heard = list(answers)
    replicas = [one for one in heard if one.heard is gate.HeardRole.REPLICA]
    return right(replicas or heard, policy, waited_s)


around("one replica opens the gate although another one was promoted", gate, "verdict_of", _one_is_enough)
around(
    "a replica of another name has a say at the gate", gate, "answer_of",
    lambda right, address, frame, hello, expected: right(address, frame, hello, ""),
)  # fmt: skip


instead(
    "a side in trouble tells an old primary of that alone", role_answer, "answer_in_trouble",
    lambda hello, record, config, trouble, *, proven: trouble,
)  # fmt: skip


def _as_a_primary(right: Callable, self: Secondary, event: e.Connected, now: float) -> None:
    features = tuple(feature for feature in event.hello.features if feature != ASKS_ROLE)
    self._connected(replace(event, hello=replace(event.hello, features=features)), now)


around("a question for the role takes the place of the primary", Secondary, "_tell_role", _as_a_primary)


mutants_of_the_secondary.add(instead, around)
mutants_of_marks.add(instead, around)
mutants_of_saves.add(MUTANTS, instead, around)
