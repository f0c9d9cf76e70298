"""Stories of what befalls a stream at one short moment, which worlds drawn at random seldom meet; see ``directed``."""

from __future__ import annotations

import copy
from dataclasses import replace

from pydbt.core.primary import events as ev
from pydbt.core.protocol.frames import Ack, Commit
from pydbt.core.transactions.followed_log import ReadTransaction
from tests.simulation.cluster.transactions import transaction
from tests.simulation.steps import in_sync, until, write
from tests.simulation.world import Cluster, Faults, ModelSecondary


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


STORIES = {
    "a secondary that went back behind what it had acknowledged is trusted": (
        one_that_was_put_back_within_a_copy_is_compared_anew
    ),
    "a transaction that is read from the disk is held at once": (
        a_transaction_of_the_disk_is_held_when_what_was_written_by_then_is_there
    ),
}
"""For each mutant that one of these stories catches, the story."""
