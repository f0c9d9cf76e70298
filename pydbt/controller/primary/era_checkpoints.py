"""Remembers an era of dm-era now and then, which bounds what is compared after a power loss.

Its slow steps (ending an era, flushing the source, writing the maps) are done in a thread, and all that touches the brains in
the loop's thread. See ``core/primary/era_bound`` for the order of the steps, and why.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydbt.controller.primary.era_recovery import is_untracked
from pydbt.controller.primary.feed import Feed
from pydbt.controller.primary.job import Job
from pydbt.controller.primary.peer import Peer
from pydbt.controller.primary.report import ComparedSince, WriteIntentReport
from pydbt.controller.primary.volume import Volume
from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.errors import StateError
from pydbt.core.primary.era_bound import Checkpoint, Intent, can_be_remembered
from pydbt.device.era import EraLayer
from pydbt.store.map_image import MapHeader

# Writes in flight that are not certain, or a ring that is far behind: a checkpoint is given up after this many looks.
LOOKS = 60
STANDS_S = 60.0
"""A step that takes longer, on a disk that does not answer, is told of."""
_CLOSE_S = 5.0

_log = logging.getLogger("pydbt")


class _Step(Job):
    """``take`` is given its result, in the loop's thread."""

    def __init__(self, work: Callable[[], Any], take: Callable[[Any], None]) -> None:
        self.take = take
        super().__init__("write-intent", work)


@dataclass(frozen=True, slots=True)
class _Image:
    """What is to be remembered of one secondary. ``forgotten``: of its file, when this was put together."""

    peer: Peer
    forgotten: int
    intent: Intent
    header: MapHeader
    dirty: DirtyMap

    def save(self) -> bool:
        """StateError when it cannot be written; False when it was forgotten meanwhile."""
        return self.peer.era.save(self.forgotten, self.intent, self.header, self.dirty)


class EraCheckpoints:
    """Called from the loop's thread alone. ``layer`` None: the volume has none, and nothing is done.

    ``problem`` is why a layer with dm-era cannot be relied on.
    """

    def __init__(self, volume: Volume, feed: Feed, layer: EraLayer | None, problem: str) -> None:
        self._volume, self._feed = volume, feed
        self._layer, self._problem = layer, problem
        self._job: _Step | None = None
        self._stands_at = float("inf")  # the step under way is told of then
        self._attempt: Checkpoint | None = None
        self._looks = 0
        self._next = 0.0
        self._seen = self._seen_next = -1  # sectors written by the last checkpoint, and by the one under way
        self._kept: dict[int, tuple[int, str]] = {}  # the era that is remembered, and since when, by secondary
        self._clean: set[int] = set()  # secondaries for which nothing was out of sync then
        self._forgetting: set[int] = set()  # secondaries whose file is on its way out
        self._unforgotten = ""  # why one could not be removed

    @property
    def has_layer(self) -> bool:
        """Whether there is something to advance."""
        return self._layer is not None

    def advance(self, now: float) -> None:
        """Begin a checkpoint that is due, or take the next step of one; quick."""
        if self._layer is None:
            return
        for peer in self._volume.peers.values():
            if any(not is_untracked(reason) for reason in peer.brain.state.taints):
                self._forget(peer)
        if self._unforgotten:
            self._give_up(self._unforgotten)
            self._unforgotten = ""
        if self._job is not None and not self._job.ended.is_set():
            if now >= self._stands_at:
                self._tell(f"a step of it has not ended for {STANDS_S:g} s")
            return
        job, self._job, self._stands_at = self._job, None, now + STANDS_S
        if job is not None and job.error:
            self._give_up(job.error)
        elif job is not None:
            job.take(job.result)
        elif self._attempt is not None:
            self._look(self._layer, self._attempt)
        elif now >= self._next and self._is_worth_it():
            self._next = now + self._volume.options.era_interval_s
            self._seen_next = self._volume.capture.counters().submitted_sectors
            self._job = _Step(self._layer.checkpoint, self._began)

    def _is_worth_it(self) -> bool:
        """Whether an era that begins now would bound less than the last one does."""
        peers = [peer for peer in self._volume.peers.values() if can_be_remembered(peer.brain)]
        written = self._volume.capture.counters().submitted_sectors != self._seen
        return bool(peers) and (written or any(peer.number not in self._clean for peer in peers))

    def _began(self, era: int) -> None:
        self._attempt, self._looks = Checkpoint(era, self._volume.capture.producer_position()), 0

    def _look(self, layer: EraLayer, attempt: Checkpoint) -> None:
        self._looks += 1
        if attempt.taken_in(self._volume.fanout.brains):
            path = self._volume.device.path
            self._job = _Step(lambda: flush(path), lambda _: self._remember(layer, attempt))
        elif self._looks > LOOKS:
            self._give_up("which writes are in flight is not known for sure")

    def _remember(self, layer: EraLayer, attempt: Checkpoint) -> None:
        """The source was flushed: map and era go to disk in the thread, one secondary after the other, unless something is
        wrong now."""
        volume, metadata = self._volume, self._volume.metadata
        self._attempt = None
        volume.audit(time.monotonic())  # a taint that it finds comes first
        self._feed.process()
        words = volume.capture.active_words(), volume.capture.quiet_words()
        images = []
        volume.keep()
        for peer in volume.peers.values():
            dirty = attempt.map_of(peer.number, peer.brain, words)
            if dirty is None:
                continue
            intent = Intent(peer.brain.state.replica.identifier, layer.metadata, layer.region_bytes, attempt.era)
            header = MapHeader(
                metadata.state.uuid, volume.geometry, peer.brain.config.epoch, peer.brain.state.acknowledged
            )
            images.append(_Image(peer, peer.era.forgotten, intent, header, dirty))

        def work() -> list[_Image]:
            if state is not None:  # first: a replica that goes back behind the position of the map is noticed
                state.wait()
            return [image for image in images if image.save()]

        state = metadata.newest_open
        self._job = _Step(work, self._remembered)

    def _remembered(self, images: list[_Image]) -> None:
        """They are on disk. What was forgotten meanwhile is not among them, or is forgotten again."""
        for image in images:
            number = image.peer.number
            if image.forgotten == image.peer.era.forgotten:
                self._kept[number] = image.intent.era, datetime.now(UTC).isoformat(timespec="seconds")
                (self._clean.discard if image.dirty.any() else self._clean.add)(number)
        self._seen, self._problem = self._seen_next, ""

    def _give_up(self, problem: str) -> None:
        """Until the next one is due. The era that was remembered before stays true; more is compared after a power loss."""
        self._attempt = None
        self._tell(problem)

    def _tell(self, problem: str) -> None:
        if problem != self._problem:
            _log.warning("no newer era can be remembered, so that more is compared after a power loss: %s", problem)
        self._problem = problem

    def _forget(self, peer: Peer) -> None:
        """The map of this secondary is not complete: after a power loss everything is compared with it. Its record, which tells
        that, is written first."""
        self._kept.pop(peer.number, None)
        self._clean.discard(peer.number)
        if peer.number in self._forgetting:
            return

        def work() -> None:
            try:
                peer.forget_era()
            except StateError as error:
                self._unforgotten = str(error)
            finally:
                self._forgetting.discard(peer.number)

        self._forgetting.add(peer.number)
        self._volume.map_writer.submit(work)

    def close(self) -> None:
        """Give up a checkpoint that is under way."""
        if self._job is not None:
            self._job.join(_CLOSE_S)

    def report(self, peer: Peer) -> WriteIntentReport | None:
        """For the status of one secondary; None where the volume has no write-intent."""
        if self._layer is None and not self._problem:
            return None
        era, at = self._kept.get(peer.number, (None, None))
        compared = None if peer.since is None else ComparedSince(peer.since.era, peer.since.bytes)
        return WriteIntentReport(era, at, compared, self._problem)


def flush(path: str) -> None:
    """Have the device write out its cache; OSError when it cannot."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
