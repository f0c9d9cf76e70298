"""Scenarios made by hand, for mutants that random worlds show too rarely: the coincidence that is needed is arranged.

Each plays one story and checks it as it goes: it passes with the code as it is, and fails with the mutant of its name.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from pydbt.controller.secondary.kept_target import KeptTarget
from pydbt.core.blocks.apply_plan import PlannedWrites
from pydbt.core.blocks.runs import Runs
from pydbt.core.configured.on_unreachable import OnUnreachable
from pydbt.core.primary import comparison_blocks, gate
from pydbt.core.primary import events as ev
from pydbt.core.primary.modes import Phase
from pydbt.core.primary.quiet_bitmap import RETIRE_INTERVAL_S
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.generations import Generations
from pydbt.core.protocol.role import ASKS_ROLE, Role
from pydbt.core.secondary import events as e
from pydbt.core.secondary import handshake, role_answer
from pydbt.core.secondary.bad_blocks import BAD_BLOCK_BYTES, BAD_BLOCK_SECTORS, BadBlocks
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.store.journal_files import JournalFiles
from tests.core.secondary.test_brain import ASKS, EPOCH, HELLO, Play, blocks, stream
from tests.simulation import directed_handovers, directed_marks, directed_moments, directed_saves
from tests.simulation.cluster.disk import Lossy, Machine
from tests.simulation.cluster.sim_target import Flaws, SimTarget
from tests.simulation.steps import STEP_S, everything, in_sync, until, write
from tests.simulation.world import Cluster, Faults


def a_failed_write_is_compared_behind_its_own_data() -> None:
    """The link takes nothing while a write fails and its block is read.

    The disk kept the old content, as the secondary still has it: compared now, the block would be called equal, and then
    the queued data of the write that failed would arrive.
    """
    cluster = Cluster(seed=1, faults=Faults(failed=1.0))
    kernel = cluster.kernel
    cluster.odd = set(range(12))  # of a write that failed nobody can say what it left
    until(cluster, lambda: in_sync(cluster), "in sync")
    cluster.feed(ev.Outbound(queued_bytes=1 << 30, sent_bytes=0))
    before = list(kernel.disk)
    for block in range(12):
        write(cluster, block)
    assert any(kernel.disk[block] == before[block] for block in range(12)), "some of the writes left the old content"
    until(cluster, lambda: bool(cluster.readings), "the blocks are read")
    for _ in range(100):
        cluster.step(STEP_S)
    cluster.feed(ev.Outbound(queued_bytes=0, sent_bytes=0))
    until(cluster, lambda: in_sync(cluster), "in sync again")
    assert kernel.disk == cluster.secondary.content


class WritesDuringTheLastRead(Cluster):
    """As the last sweep reads a batch, one of its blocks is written: after the ring was drained, before the read is over."""

    late_writes = 0

    def read(self, reading: int, runs: Runs) -> None:
        if self.brain.phase is Phase.LAST_SWEEP:
            self.late_writes += 1
            write(self, int(runs.firsts[0]))
        super().read(reading, runs)


def the_stream_reaches_to_the_end_of_the_last_read() -> None:
    """The image that is committed holds a write of which the record is not taken in yet: the stream must bring it first.

    The ring is drained so rarely that the secondary has acknowledged the last read before.
    """
    cluster = WritesDuringTheLastRead(seed=1, faults=Faults(), digests=False)
    until(cluster, lambda: in_sync(cluster), "in sync")
    for block in range(cluster.kernel.blocks):
        write(cluster, block)
    until(cluster, lambda: in_sync(cluster), "in sync with every block written")
    cluster.lose()
    cluster.late_writes = 0
    write(cluster, 0)
    until(cluster, lambda: cluster.late_writes > 0, "a last sweep with something to read", step_seconds=1.0)
    until(cluster, lambda: in_sync(cluster), "in sync again")
    assert cluster.kernel.disk == cluster.secondary.content


class SomeBlocksAreBad(Cluster):
    """These blocks of the source cannot be read."""

    bad: frozenset[int] = frozenset()

    def read(self, reading: int, runs: Runs) -> None:
        if reading in self.dropped:
            return
        blocks = runs.blocks().tolist()
        self.readings[reading] = {block: self.kernel.disk[block] for block in blocks if block not in self.bad}
        unread = Runs.of_blocks(np.array(sorted(self.bad.intersection(blocks)), np.int64))
        error = "bad sector" if unread.total() else ""
        self.feed(ev.BlocksRead(reading, self.kernel.produced, len(self.readings[reading]) * 4096, error, unread))


def a_block_that_cannot_be_read_is_known_until_it_is_written_anew() -> None:
    """A resynchronization lands without a bad block, which differs until a write covers it."""
    cluster = SomeBlocksAreBad(seed=1, faults=Faults())
    until(cluster, lambda: in_sync(cluster), "in sync")
    cluster.lose()
    cluster.bad = frozenset({3})
    cluster.odd = {3}  # the image lacks what it was written
    for block in range(8):
        write(cluster, block)
    until(cluster, lambda: in_sync(cluster), "in sync but for one block")
    assert cluster.brain.out_of_sync_bytes() == 4096
    differs = [block for block, tag in enumerate(cluster.kernel.disk) if tag != cluster.secondary.content[block]]
    assert differs == [3]
    write(cluster, 3)
    until(cluster, lambda: in_sync(cluster) and not cluster.brain.out_of_sync_bytes(), "in sync")
    assert cluster.kernel.disk == cluster.secondary.content


def blocks_are_compared_behind_the_stream_before_them() -> None:
    """An update is in the journal alone, and a comparison of its block arrives: compared now, the older content is seen."""
    play = Play()
    (append,) = play.frame(stream(11, 11), e.Append)
    assert not play.frame(f.Digests(1, Runs(np.array([0]), np.array([1])), bytes(16)), e.Compare), (
        "compared before the update"
    )
    kinds = [type(effect) for effect in play(e.JournalDurable((append.ticket,), (5000,)))]
    assert kinds.index(e.Apply) < kinds.index(e.Compare)


def a_stream_with_a_gap_is_refused() -> None:
    """A primary that leaves out an update: nothing of it may be taken, because the image would be no moment of the volume."""
    play = Play()
    assert play.frame(stream(11, 12), e.Append)
    effects = play.frame(stream(14, 14))
    assert not any(isinstance(effect, e.Append) for effect in effects), "an update was taken that follows on nothing"
    assert any(isinstance(effect, e.CloseConnection) for effect in effects)
    assert not play.frame(stream(15, 15), e.Append)


def a_taint_is_answered_by_a_copy_where_nothing_can_be_compared() -> None:
    """The secondary holds something else of a block, and its program knows no keyed digests."""
    cluster = Cluster(seed=1, faults=Faults())
    until(cluster, lambda: in_sync(cluster), "in sync")
    cluster.compares = cluster.brain.state.replica.compares = False
    cluster.secondary.content[3] = -1
    cluster.corrupted.add(3)
    cluster.feed(ev.Tainted("somebody wrote unseen"))
    cluster.feed(ev.VerifyAsked(everything(cluster), True, answers=cluster.brain.state.taint_numbers))
    until(cluster, lambda: in_sync(cluster) and not cluster.brain.state.taints, "the taint is answered")
    assert cluster.secondary.content[3] == cluster.kernel.disk[3]


def write_unseen(cluster: Cluster, block: int, reason: str) -> None:
    """As a write to the file behind a loop device, which is noticed some seconds later: no program saw it."""
    cluster.kernel.disk[block] = -7_000_000 - block
    cluster.corrupted.add(block)
    cluster.feed(ev.Tainted(reason))


def answer(cluster: Cluster, used: Runs) -> None:
    """Begin the comparison for what taints the volume, as the controller does when it has found the blocks in use."""
    left_out, answers = cluster.brain.state.left_out.blocks.extents(), cluster.brain.state.taint_numbers
    chosen = comparison_blocks.blocks_to_compare(
        everything(cluster),
        left_out,
        ev.UsedBlocks(used, "by its file system"),
        untold=False,
        tainted=True,
        free_too=False,
    )
    cluster.feed(ev.VerifyAsked(chosen.runs, True, None, chosen.free, chosen.in_use, answers))


def an_unseen_write_to_what_was_free_is_copied() -> None:
    """The first copy takes half of the blocks. Then a file comes to lie in the other half, by a write that no program saw."""
    cluster = Cluster(seed=1, faults=Faults())
    until(cluster, lambda: in_sync(cluster), "in sync")
    file = cluster.kernel.blocks - 3
    assert cluster.brain.state.left_out.blocks.test_blocks(np.array([file])).all(), "the first copy left it out"
    write_unseen(cluster, file, "the file behind loop0 was changed past it")
    cluster.check_prefix = lambda: None  # no image before the comparison has it
    half = np.array([0, file]), np.array([cluster.kernel.blocks // 2, 1])
    answer(cluster, Runs(*half))
    until(cluster, lambda: bool(cluster.verified) and not cluster.brain.state.taints, "the taint is answered")
    assert cluster.secondary.content[file] == cluster.kernel.disk[file], "up to date without a block"
    assert cluster.verified[-1].differing_blocks == 1 and not cluster.verified[-1].filled_blocks


def what_is_written_to_free_space_counts_after_a_kill() -> None:
    """The first copy leaves half of the blocks out. One of them is written, and acknowledged; the kernel forgets it only when
    the disk tells the next controller that it is no longer left out.
    """
    cluster = Cluster(seed=1, faults=Faults())
    until(cluster, lambda: in_sync(cluster), "in sync")
    file = cluster.kernel.blocks - 3
    assert file in cluster.left_out_on_disk and file not in cluster.kernel.dirty()
    write(cluster, file)
    for _ in range(int(3 * RETIRE_INTERVAL_S / STEP_S)):
        cluster.step(STEP_S)
        is_known = file in cluster.kernel.dirty() or file not in cluster.left_out_on_disk
        assert is_known, "a difference there is none for the next controller"
    assert in_sync(cluster) and file not in cluster.kernel.dirty()


def the_same_taint_once_more_is_answered_once_more() -> None:
    """A file is written past its loop device until it is noticed twice, in the same words, the second time during the
    comparison, which has compared the block already. Then a third time, when nothing taints the volume any more.
    """
    cluster = Cluster(seed=1, faults=Faults())
    until(cluster, lambda: in_sync(cluster), "in sync")
    used, reason = (
        Runs(np.array([0]), np.array([cluster.kernel.blocks // 2])),
        "the file behind loop0 was changed past it",
    )
    cluster.check_prefix = lambda: None  # no image before the comparison has it
    write_unseen(cluster, 3, reason)
    answer(cluster, used)
    until(cluster, lambda: cluster.secondary.content[3] == cluster.kernel.disk[3], "it is copied")
    cluster.kernel.disk[3] -= 1
    cluster.feed(ev.Tainted(reason))
    until(cluster, lambda: bool(cluster.verified), "the comparison ends that had begun before")
    assert cluster.brain.state.taints, "not tainted any more, and a block differs"
    for _ in range(2):
        answer(cluster, used)
        until(cluster, lambda: not cluster.brain.state.taints, "it is answered by a comparison of its own")
        assert cluster.secondary.content[3] == cluster.kernel.disk[3], "not tainted any more, and a block differs"
        cluster.kernel.disk[3] -= 1
        cluster.feed(ev.Tainted(reason))


def a_block_in_the_stage_is_asked_for_whatever_the_target_holds() -> None:
    """The stage has newer content of a block than the target: that the target equals the source now would tell nothing."""
    play = Play(hello=ASKS)
    play(e.RoomMeasured(1 << 40))
    (begin,) = play.frame(f.Begin(1, EPOCH, 0), e.Append)
    (append,) = play.frame(blocks(1), e.Append)  # block 1
    play(e.JournalDurable((begin.ticket, append.ticket), (100, 5000)))
    (compare,) = play.frame(f.Digests(2, Runs(np.array([1]), np.array([1])), bytes(16)), e.Compare)
    effects = play(e.Compared(compare.ticket, np.array([], np.int64)))
    (want,) = [x.frame for x in effects if isinstance(x, e.Send) and isinstance(x.frame, f.Want)]
    assert want.units.blocks().tolist() == [1], "a block of the stage was called equal by what the target holds"


def a_record_that_was_refused_is_not_found_again() -> None:
    """It reached the file and was never acknowledged; later its blocks may go to the target directly, past the journal."""
    with tempfile.TemporaryDirectory() as folder:
        journal = JournalFiles(Path(folder))
        journal.start(0, 0, 1)
        first, _ = journal.append([stream(11, 11), stream(12, 12)])
        journal.cut(first)
        journal.close()
        again = JournalFiles(Path(folder))
        assert [header.first for header, _ in again.recover(0, 1)] == [11], "a refused record was found"
        again.close()


class BadDisk:
    """A target with one block that cannot be written. ``has``: what is saved beside it."""

    def __init__(self) -> None:
        machine, size = Machine("one"), 8 * BAD_BLOCK_BYTES
        self.content, self.flaws, self.blocks = Lossy(size), Flaws(bad={3}), BadBlocks(size)
        self.has: dict[int, bytes] = {}
        disk = SimTarget(self.content, machine, random.Random(1), self.flaws, careful=True)
        self.target = KeptTarget(disk, self.blocks, self._save)
        columns = (np.array([value], np.int64) for value in (2 * BAD_BLOCK_SECTORS, 3 * BAD_BLOCK_SECTORS, 0))
        self.target.write_runs(PlannedWrites(*columns), memoryview(b"n" * (3 * BAD_BLOCK_BYTES)))

    def _save(self, blocks: BadBlocks) -> None:
        self.has = {number: bytes(block.content) for number, block in blocks.kept.items()}


def what_is_kept_aside_is_saved_by_a_sync() -> None:
    """After it the journal is freed, and the primary is told that all of it is durable."""
    disk = BadDisk()
    disk.target.sync()
    assert disk.has == {3: b"n" * BAD_BLOCK_BYTES}, "what is kept aside is lost by a kill"


def what_is_kept_aside_stays_until_the_target_takes_it() -> None:
    """It is tried again while the block is still bad, and then when it is not."""
    disk = BadDisk()
    for bad, kept in ({3}, [3]), (set(), []):
        disk.flaws.bad = bad
        disk.target.try_again()
        assert disk.blocks.runs().blocks().tolist() == kept
    assert disk.content.durable[3 * BAD_BLOCK_BYTES : 4 * BAD_BLOCK_BYTES] == b"n" * BAD_BLOCK_BYTES
    assert not disk.has


def what_a_bad_block_lacks_is_sent_again() -> None:
    """The secondary's disk does not take a block any more, and has lost what was in it."""
    cluster = Cluster(seed=1, faults=Faults())
    until(cluster, lambda: in_sync(cluster), "in sync")
    cluster.secondary.content[3] = -1
    cluster.corrupted.add(3)
    cluster.feed(ev.Received(f.Unwritable(Runs(np.array([3]), np.array([1])), 4096)))
    until(cluster, lambda: cluster.secondary.content[3] == cluster.kernel.disk[3], "the block is sent again")


def a_wait_does_not_end_well_without_a_block() -> None:
    """The source cannot give a block, and then the target does not take one: nobody is told that all is there."""
    cluster = SomeBlocksAreBad(seed=1, faults=Faults())
    until(cluster, lambda: in_sync(cluster), "in sync")
    cluster.lose()
    cluster.bad, cluster.odd = frozenset({3}), {3}
    for block in range(8):
        write(cluster, block)
    until(cluster, lambda: in_sync(cluster), "in sync but for one block")
    cluster.feed(ev.WaitAsked(1, cluster.kernel.produced))
    until(cluster, lambda: {1} == cluster.in_vain, "the wait ends")
    cluster.bad = frozenset()
    write(cluster, 3)
    until(cluster, lambda: {1} == cluster.answered, "the block is there after all")
    cluster.feed(ev.Received(f.Unwritable(Runs(np.array([3]), np.array([1])), 4096)))
    for token, patient in ((2, True), (3, False)):
        cluster.feed(ev.WaitAsked(token, cluster.kernel.produced, patient=patient))
    until(cluster, lambda: {1, 3} == cluster.in_vain, "the wait ends that has no time limit")
    assert cluster.answered == {1}


def a_question_for_the_role_disturbs_no_primary() -> None:
    """An old primary asks while another one, which is served, has an update on its way."""
    play = Play()
    (append,) = play.frame(stream(11, 11), e.Append)
    question = replace(HELLO, features=(*HELLO.features, ASKS_ROLE))
    effects = play(e.Connected(9, question, bytes(32)))
    assert [type(x.frame) for x in effects if isinstance(x, e.Send)] == [Role]
    assert [ack.sequence for ack in play.acks(e.JournalDurable((append.ticket,), (5000,)))] == [11]
    assert play.frame(stream(12, 12), e.Append), "the primary is not served any more"


_QUESTION = replace(HELLO, features=(ASKS_ROLE,))


def heard_at_the_gate(role: str, replica: str, expected: str) -> gate.RoleAnswer:
    frame = Role(role, "", replica, (), Generations(), 1, 1)
    return gate.answer_of("h:1", frame, _QUESTION, expected)


def one_that_was_promoted_decides_at_the_gate() -> None:
    """Of two secondaries one is a replica, and the other was promoted: the old primary must not be mounted."""
    answers = [heard_at_the_gate(role, "cd" * 16, "cd" * 16) for role in ("replica", "promoted")]
    for policy in (OnUnreachable.parse("mount"), OnUnreachable.parse("refuse")):
        verdict = gate.verdict_of(answers, policy, 0.0)
        assert verdict is not None and verdict.outcome is gate.GateOutcome.SHUT


def a_stranger_has_no_say_at_the_gate() -> None:
    """At the address is another replica: by its word the gate would open, where silence is to refuse."""
    answers = [heard_at_the_gate("replica", "77" * 16, "cd" * 16)]
    verdict = gate.verdict_of(answers, OnUnreachable.parse("refuse"), 0.0)
    assert verdict is not None and verdict.outcome is gate.GateOutcome.SILENT


def a_side_in_trouble_tells_that_it_is_newer() -> None:
    """It was promoted, and follows a third machine by now; its disk is full, and the first primary asks before it mounts."""
    older, newer = Generations(5, (), (4,)), Generations(7, (), (6, 5, 4))
    record = ReplicaRecord(
        "cd" * 16, "t", 1 << 20, HELLO.volume, HELLO.size_bytes, HELLO.block_bytes, generations=newer
    )
    question = replace(_QUESTION, generations=older)
    trouble, config = handshake.restart_refusal("its disk is full"), SecondaryConfig(HELLO.size_bytes)
    frame = role_answer.answer_in_trouble(question, record, config, trouble, proven=False)
    verdict = gate.verdict_of([gate.answer_of("h:1", frame, question, "cd" * 16)], OnUnreachable.parse("mount"), 0.0)
    assert verdict is not None and verdict.outcome is gate.GateOutcome.SHUT


DIRECTED: dict[str, Callable[[], None]] = {
    "a block that could not be read counts as in sync": a_block_that_cannot_be_read_is_known_until_it_is_written_anew,
    "a block that is kept aside is given up before it is on the target": what_is_kept_aside_stays_until_the_target_takes_it,
    "a comparison does not wait for the stream before it": blocks_are_compared_behind_the_stream_before_them,
    "a comparison of settled blocks before the queue is sent": a_failed_write_is_compared_behind_its_own_data,
    "a taint is answered by a copy of nothing": a_taint_is_answered_by_a_copy_where_nothing_can_be_compared,
    "a taint's comparison leaves out what was free at the first copy": an_unseen_write_to_what_was_free_is_copied,
    "a second taint of the same words is answered by the comparison of the first": the_same_taint_once_more_is_answered_once_more,
    "a question for the role takes the place of the primary": a_question_for_the_role_disturbs_no_primary,
    "a refused record stays in the journal": a_record_that_was_refused_is_not_found_again,
    "a replica of another name has a say at the gate": a_stranger_has_no_say_at_the_gate,
    "a side in trouble tells an old primary of that alone": a_side_in_trouble_tells_that_it_is_newer,
    "a stream that jumps is taken": a_stream_with_a_gap_is_refused,
    "a wait for a block that cannot get there ends well": a_wait_does_not_end_well_without_a_block,
    "one replica opens the gate although another one was promoted": one_that_was_promoted_decides_at_the_gate,
    "staged blocks are compared with the target": a_block_in_the_stage_is_asked_for_whatever_the_target_holds,
    "what is kept aside is not saved before the journal is freed": what_is_kept_aside_is_saved_by_a_sync,
    "the quiet bitmap is zeroed before it is on disk that a block is not left out any more": (
        what_is_written_to_free_space_counts_after_a_kill
    ),
    "what a bad block may have lost is not sent again": what_a_bad_block_lacks_is_sent_again,
    "the stream is cut before the last read was over": the_stream_reaches_to_the_end_of_the_last_read,
    **directed_handovers.STORIES,
    **directed_marks.STORIES,
    **directed_moments.STORIES,
    **directed_saves.STORIES,
}
"""For each mutant that is caught by a story of its own, the story."""
