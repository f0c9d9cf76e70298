"""Stories of faults in a stream at one short moment, which worlds drawn at random seldom meet; see ``directed``."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary import events as ev
from pydbt.core.primary.modes import Mode
from pydbt.core.protocol.frames import Ack, Commit
from pydbt.core.protocol.generations import Verdict, verdict
from pydbt.core.tracking.capture_record import RECORD, Operation, RecordKind
from pydbt.core.transactions.followed_log import ReadTransaction
from tests.core.volume.test_fanout import fanout_of, written
from tests.simulation.cluster.transactions import transaction
from tests.simulation.steps import in_sync, until, write
from tests.simulation.world import SECTORS, Cluster, Faults, ModelSecondary


class PutBackAtTheEnd(Cluster):
    """The secondary counts what it writes. With ``backup`` set it is put back to that when a COMMIT arrives, and loses its
    connection."""

    progress = 0
    backup: tuple[int, ModelSecondary] | None = None

    def back_up(self) -> None:
        self.backup = self.progress, copy.deepcopy(self.secondary)

    def secondary_takes(self, message: tuple) -> object:
        match message:
            case ("frame", Commit()) if self.backup is not None:
                (self.progress, self.secondary), self.backup = self.backup, None
                self.corrupted = set(range(self.kernel.blocks))  # as long as nobody can have heard of it
                self.lose()
                return None
            case ("blocks", _, content):
                self.progress += len(content)
        answer = super().secondary_takes(message)
        return replace(answer, progress=self.progress) if isinstance(answer, Ack) else answer

    def feed(self, event: ev.Event) -> None:
        if isinstance(event, ev.Connected):
            self.corrupted = set()
            event = replace(event, progress=self.progress)
        super().feed(event)


def one_that_was_put_back_within_a_copy_is_compared_anew() -> None:
    """To a moment at which nothing of that copy was there: it stands where it stood, and lacks what it had acknowledged."""
    cluster = PutBackAtTheEnd(seed=1, faults=Faults(), digests=False)
    until(cluster, lambda: in_sync(cluster), "in sync")
    cluster.lose()
    for block in range(12):
        write(cluster, block)
    until(cluster, lambda: cluster.secondary.state == "inconsistent", "the copy begins")
    assert cluster.secondary.content[:12] != cluster.kernel.disk[:12], "nothing of it is there"
    cluster.back_up()
    until(cluster, lambda: cluster.backup is None, "all of it was acknowledged")
    assert cluster.secondary.content[:12] != cluster.kernel.disk[:12], "it was put back"
    until(cluster, lambda: in_sync(cluster), "in sync again")
    assert cluster.secondary.content == cluster.kernel.disk


def a_transaction_of_the_disk_is_held_when_what_was_written_by_then_is_there() -> None:
    """The log was read after a write that is on its way to the secondary still: that may be the end of the transaction."""
    cluster = Cluster(seed=1, faults=Faults())
    brain = cluster.brain
    until(cluster, lambda: in_sync(cluster), "in sync")
    cluster.frozen_until = cluster.now + 1.0
    write(cluster, 5)
    cluster.pump()
    place = (5 * cluster.geometry.block_bytes, cluster.geometry.block_bytes)
    found = ReadTransaction(transaction(1), (place,), cluster.now, 1)
    cluster.feed(ev.Captured(cluster.kernel.drain(), cluster.kernel.consumed, 0, read=found))
    status = brain.transactions.status()
    assert status.newest is not None and status.newest.name == "1"
    assert cluster.secondary.content[5] != cluster.kernel.disk[5], "the write has to be on its way"
    assert status.held is None, "a transaction is called held, and the secondary lacks its end"
    until(cluster, lambda: in_sync(cluster), "in sync again")
    assert brain.transactions.status().held == status.newest
    assert cluster.secondary.content == cluster.kernel.disk


def written_unlike_the_stream(cluster: Cluster, blocks: range) -> None:
    """Writes that fail: the secondary gets them, and some of them the disk has not taken."""
    kernel, faults = cluster.kernel, cluster.kernel.faults
    cluster.odd |= set(blocks)  # of a write that failed nobody can say what it left
    before = list(kernel.disk)
    kernel.faults = replace(faults, failed=1.0)
    identifiers = [kernel.submit(block) for block in blocks]
    cluster.pump()
    for identifier in identifiers:
        assert identifier is not None
        kernel.complete(identifier)
    cluster.pump()
    kernel.faults = faults
    assert any(kernel.disk[block] == before[block] for block in blocks), "some of the writes left the old content"


class Halves(Cluster):
    """What the model knows of a block is its second half. The first half is written by ``write_first_half`` alone."""

    def write_first_half(self, block: int) -> None:
        rows = np.zeros(2, RECORD)
        rows["kind"], rows["op"] = (RecordKind.SUBMIT, RecordKind.COMPLETE), Operation.WRITE
        rows["sector"], rows["sectors"] = block * SECTORS, SECTORS // 2
        rows["data"] = rows["pieces"] = 1, 0
        self.feed(ev.Captured(rows, self.kernel.consumed, self.kernel.lost))

    def note_captured(self, records: np.ndarray, sequence: int) -> None:
        if (records["sectors"] == SECTORS).all():
            super().note_captured(records, sequence)

    def message(self, effect: ev.Effect) -> tuple:
        made = super().message(effect)
        if isinstance(effect, ev.SendStream):
            whole = (effect.records["sectors"] == SECTORS).tolist()
            made = (*made[:3], [row for row, is_whole in zip(made[3], whole, strict=True) if is_whole])
        return made


def a_block_that_is_written_in_part_stays_in_doubt() -> None:
    """A write fails, and then another one goes to the first half of its block, before anybody has read that."""
    cluster = Halves(seed=1, faults=Faults())
    until(cluster, lambda: in_sync(cluster), "in sync")
    blocks = range(12)
    written_unlike_the_stream(cluster, blocks)
    for block in blocks:
        cluster.write_first_half(block)
    until(cluster, lambda: in_sync(cluster), "in sync again")
    assert cluster.secondary.content == cluster.kernel.disk


def a_block_whose_next_write_fails_as_well_stays_in_doubt() -> None:
    """The second write is on its way to the secondary when it fails: without that it would settle the block."""
    cluster = Cluster(seed=1, faults=Faults())
    until(cluster, lambda: in_sync(cluster), "in sync")
    cluster.frozen_until = cluster.now + 0.5
    for _ in range(2):
        written_unlike_the_stream(cluster, range(12))
    until(cluster, lambda: in_sync(cluster), "in sync again")
    assert cluster.secondary.content == cluster.kernel.disk


class WritesBehindARead(Cluster):
    """When blocks in doubt have been read for the first time, and are not compared yet, all of them are written anew."""

    written = False

    def read(self, reading: int, runs: Runs) -> None:
        super().read(reading, runs)
        if self.brain.mode is Mode.NORMAL and not self.written:
            self.written = True
            for block in runs.blocks().tolist():
                write(self, block)
            self.pump()


def what_was_read_of_a_block_does_not_replace_what_is_written_since() -> None:
    """The write that failed left an older content, which was read; by the time it would be sent the block is written anew."""
    cluster = WritesBehindARead(seed=1, faults=Faults())
    until(cluster, lambda: in_sync(cluster), "in sync")
    written_unlike_the_stream(cluster, range(12))
    until(cluster, lambda: cluster.written, "the blocks are read")
    until(cluster, lambda: in_sync(cluster), "in sync again")
    assert cluster.secondary.content == cluster.kernel.disk


def one_that_is_removed_has_not_what_is_written_from_then_on() -> None:
    """Two follow, and the second one is given up. It keeps the name that it was told, and may come back years later."""
    volume = fanout_of(True, True)
    removed = volume.brains[2].state.generations.in_sync()
    volume.handle(ev.RemoveAsked(), 0.1, 2)
    volume.drop(2, 0.1)
    volume.handle(written(5), 0.2)
    primary = volume.brains[1].state.generations
    assert verdict(primary, removed) is Verdict.BEHIND, "by its name it has what was written without it"
    assert verdict(primary, primary.in_sync()) is Verdict.EQUAL, "the one that follows has it"


STORIES = {
    "a secondary that went back behind what it had acknowledged is trusted": (
        one_that_was_put_back_within_a_copy_is_compared_anew
    ),
    "a settled block that is written while it is read": what_was_read_of_a_block_does_not_replace_what_is_written_since,
    "a transaction that is read from the disk is held at once": (
        a_transaction_of_the_disk_is_held_when_what_was_written_by_then_is_there
    ),
    "an unsettled block is settled by a write that something odd befell": (
        a_block_whose_next_write_fails_as_well_stays_in_doubt
    ),
    "one that is removed keeps the volume's name": one_that_is_removed_has_not_what_is_written_from_then_on,
    "an unsettled block is settled by what is written to a part of it": a_block_that_is_written_in_part_stays_in_doubt,
}
"""For each mutant that one of these stories catches, the story."""
