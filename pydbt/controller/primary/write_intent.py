"""Keeps the era up to date that bounds what is compared after a power loss: a checkpoint now and then, while all is well.

What is slow about it (ending an era, flushing the source) is done in a thread; everything that concerns the brains in the
loop's own. See ``core/primary/era_bound`` for the order, and why.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydbt.controller.primary.written_since import UNTRACKED, Since
from pydbt.core.errors import PydbtError, StateError
from pydbt.core.primary.era_bound import Checkpoint, Intent, can_be_remembered
from pydbt.device.era import EraLayer
from pydbt.store.atomic import remove_file
from pydbt.store.intent_file import save_intent
from pydbt.store.map_file import MapHeader

if TYPE_CHECKING:
    from pydbt.controller.primary.loop import PrimaryLoop
    from pydbt.controller.primary.peer import Peer

# Writes in flight that are not known for sure, or a ring that is far behind: a checkpoint is given up after so many looks.
LOOKS = 60
_CLOSE_S = 5.0

_log = logging.getLogger("pydbt")


class _Job(threading.Thread):
    """Something slow. When it has ended, ``error`` says what went wrong; else ``result`` is there."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(name="write-intent", daemon=True)
        self._work = work
        self.result: Any = None
        self.error = ""
        self.start()

    def run(self) -> None:
        try:
            self.result = self._work()
        except (PydbtError, OSError) as error:
            self.error = str(error)


class WriteIntent:
    """Part of the primary's loop, and called from its thread alone. ``layer`` None: the volume has none, and this does nothing.

    ``problem`` is why a layer with dm-era cannot be relied on.
    """

    def __init__(self, loop: PrimaryLoop, layer: EraLayer | None, problem: str) -> None:
        self._loop, self._layer, self._problem = loop, layer, problem
        self._job: _Job | None = None
        self._attempt: Checkpoint | None = None
        self._looks = 0
        self._next = 0.0
        self._seen = self._seen_next = -1  # sectors written by the last checkpoint, and by the one under way
        self._kept: dict[int, tuple[int, str]] = {}  # era and time of what is remembered, by secondary
        self._clean: set[int] = set()  # secondaries for which nothing was out of sync then

    @property
    def on(self) -> bool:
        """Whether the volume has write-intent that can be relied on."""
        return self._layer is not None

    def advance(self, now: float) -> None:
        """Begin what is due, and go on with what is under way; quick."""
        if self._layer is None:
            return
        for peer in self._loop.peers.values():
            if any(reason != UNTRACKED for reason in peer.brain.taints):
                self._forget(peer)
        if self._job is not None and self._job.is_alive():
            return
        job, self._job = self._job, None
        if job is not None and job.error:
            self._give_up(job.error)
        elif self._attempt is None and job is not None:
            self._attempt, self._looks = Checkpoint(job.result, self._loop.capture.producer_position()), 0
        elif self._attempt is not None and job is not None:
            self._remember(self._attempt, now)
            self._attempt = None
        elif self._attempt is not None:
            self._look(self._attempt)
        elif now >= self._next and self._is_worth_it():
            self._next = now + self._loop.options.era_interval_s
            self._seen_next = self._loop.capture.counters().submitted_sectors
            self._job = _Job(self._layer.checkpoint)

    def _is_worth_it(self) -> bool:
        """Whether an era that begins now would bound less than the last one does."""
        peers = [peer for peer in self._loop.peers.values() if can_be_remembered(peer.brain)]
        written = self._loop.capture.counters().submitted_sectors != self._seen
        return bool(peers) and (written or any(peer.number not in self._clean for peer in peers))

    def _look(self, attempt: Checkpoint) -> None:
        self._looks += 1
        if attempt.taken_in(self._loop.fanout.brains):
            path = self._loop.device.path
            self._job = _Job(lambda: flush(path))
        elif self._looks > LOOKS:
            self._give_up("which writes are in flight is not known for sure")

    def _remember(self, attempt: Checkpoint, now: float) -> None:
        """The source was flushed: map and era go to disk, one secondary after the other, unless something is wrong now."""
        loop = self._loop
        loop.look(now)  # what the audit has to say comes first
        loop.process()
        words = loop.capture.active_words(), loop.capture.quiet_words()
        try:
            loop.keep()  # a replica that goes back behind what the map counts on is noticed
            if loop.kept.unsaved:
                loop.kept.save()
            for peer in loop.peers.values():
                dirty = attempt.map_of(peer.number, peer.brain, words)
                if dirty is None:
                    continue
                intent = Intent(peer.brain.known_replica, self._layer.metadata, self._layer.region_bytes, attempt.era)
                header = MapHeader(
                    loop.kept.volume.uuid, loop.geometry, peer.brain.config.epoch, peer.brain.acknowledged
                )
                save_intent(loop.options.state_dir / peer.record.intent_name, intent, header, dirty)
                self._kept[peer.number] = attempt.era, datetime.now(UTC).isoformat(timespec="seconds")
                (self._clean.discard if dirty.any() else self._clean.add)(peer.number)
        except StateError as error:
            self._give_up(str(error))
            return
        self._seen, self._problem = self._seen_next, ""

    def _give_up(self, problem: str) -> None:
        """Until the next one is due. What was remembered before stays true, and bounds a little less."""
        self._attempt = None
        if problem != self._problem:
            _log.warning("no newer era can be remembered, so that a power loss has more to compare: %s", problem)
        self._problem = problem

    def _forget(self, peer: Peer) -> None:
        """Its map does not tell all: after a power loss everything is compared with it."""
        self._kept.pop(peer.number, None)
        self._clean.discard(peer.number)
        try:
            forget(self._loop, peer)
        except StateError as error:
            self._give_up(str(error))

    def close(self) -> None:
        """A checkpoint under way comes to nothing."""
        if self._job is not None:
            self._job.join(_CLOSE_S)

    def report(self, peer: Peer, since: Since | None) -> dict[str, Any] | None:
        """For the status of one secondary; None where the volume has no write-intent."""
        if self._layer is None and not self._problem:
            return None
        era, at = self._kept.get(peer.number, (None, None))
        compared = None if since is None else {"era": since.era, "bytes": since.bytes}
        return {"era": era, "since": at, "compared": compared, "problem": self._problem}


def forget(loop: PrimaryLoop, peer: Peer) -> None:
    """Remove what is remembered for a secondary, durably. StateError when that fails."""
    path = loop.options.state_dir / peer.record.intent_name
    if path.exists():
        remove_file(path)


def flush(path: str) -> None:
    """Have the device write out what it keeps in its cache; OSError when it cannot."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
