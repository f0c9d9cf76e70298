"""The maps of one secondary on disk: what is written, in which order, and what goes to the state file before it.

What is to be written is put together in the loop's thread; it is written in the writer's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from pydbt.controller.primary.map_writer import MapWriter
from pydbt.controller.primary.metadata import Metadata
from pydbt.controller.primary.state_save import StateSave
from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.errors import StateError
from pydbt.core.primary import events as ev
from pydbt.core.primary.brain import Primary
from pydbt.store.map_image import MapHeader
from pydbt.store.map_keeper import MapKeeper

_log = logging.getLogger("pydbt")


@dataclass(frozen=True, slots=True)
class _Image:
    """The maps of one moment. ``unfinished``: blocks of an unfinished resynchronization have left them."""

    header: MapHeader
    dirty: DirtyMap
    staged: DirtyMap
    left_out: DirtyMap
    unfinished: bool


class PeerMaps:
    """Called from the loop's thread alone. ``post`` hands an event to the loop from any thread."""

    def __init__(
        self, number: int, brain: Primary, metadata: Metadata, writer: MapWriter, post: Callable[[ev.Event], None]
    ) -> None:
        self._number, self._brain, self._metadata = number, brain, metadata
        self._writer, self._post = writer, post
        record, place = metadata.record(number), metadata.state_dir
        self._staged_path, self._free_path = place / record.staged_name, place / record.free_name
        self._dirty, self._staged = MapKeeper(place / record.map_name), MapKeeper(self._staged_path)
        self._free = MapKeeper(self._free_path)
        # The newest write that was asked for: its number, and ``unfinished``.
        self._newest: tuple[int, bool] | None = None
        self._free_due = self._free_under_way = False

    def persist(self, effect: ev.Persist) -> ev.Persisted | None:
        """Have the maps written as they are now: the answer is posted, or returned where nothing need be written."""
        if self._brain.quiet.mapped:
            save = self._metadata.save() if self._has_news() else self._metadata.newest_open
            image = self._image()
            self._newest = effect.number, image.unfinished
            self._writer.submit(lambda: self._post(self._answer(effect, image, save)))
            return None
        return ev.Persisted(effect.zero_quiet, "", effect.cover, effect.number)

    def written(self, event: ev.Persisted) -> None:
        """The answer has come: once the map that names all of them is on disk, no block of a resynchronization is missing."""
        if self._newest is not None and event.number == self._newest[0]:
            if not event.error:
                self._metadata.change_record(self._number, unfinished=self._newest[1])
            self._newest = None

    def write(self) -> None:
        """The maps to disk, now: the writer is idle. StateError when they cannot be written."""
        if self._brain.quiet.mapped:
            if self._has_news() or self._metadata.newest_open is not None:
                self._metadata.save_now()
            image = self._image()
            self._write(image)
            self._metadata.change_record(self._number, unfinished=image.unfinished)

    def progress(self) -> int:
        """To be written down: the highest progress that the replica of the record has reported.

        Another replica's progress is remembered together with its name.
        """
        record, replica = self._metadata.record(self._number), self._brain.state.replica
        return max(record.progress, replica.progress) if record.replica == replica.identifier else record.progress

    # --- what counts for nobody ---------------------------------------------------------------------------
    def keep_left_out(self) -> None:
        """Have it written what counts for nobody and was not given to it: the answer is posted."""
        header, blocks = self._header(), self._brain.state.left_out.blocks.copy()
        self._writer.submit(
            lambda: self._post(ev.LeftOutKept(self._tried(lambda: self._write_left_out(header, blocks))))
        )

    def keep_grown(self) -> None:
        """The same, if there is more of it; without an answer. When it cannot be written, or the last one is still on its way:
        the next time."""
        left_out = self._brain.state.left_out
        self._free_due |= left_out.take_grown()
        if self._free_due and not self._free_under_way:
            self._free_due, self._free_under_way = False, True
            header, blocks = self._header(), left_out.blocks.copy()
            self._writer.submit(lambda: self._try_left_out(header, blocks))

    def _try_left_out(self, header: MapHeader, blocks: DirtyMap) -> None:
        try:
            self._write_left_out(header, blocks)
        except StateError:
            self._free_due = True
        finally:
            self._free_under_way = False

    def _write_left_out(self, header: MapHeader, blocks: DirtyMap) -> None:
        _keep_or_remove(self._free, self._free_path.exists(), header, blocks)

    # --- a write ------------------------------------------------------------------------------------------
    def _has_news(self) -> bool:
        """Whether something that the maps of now count on is to be written down, ahead of them.

        The progress, which shows that the secondary lost data, goes to disk before a map that lacks these blocks.
        """
        brain, metadata = self._brain, self._metadata
        record, unfinished = metadata.record(self._number), brain.state.replica.unfinished
        metadata.change_record(self._number, unfinished=unfinished or record.unfinished, progress=self.progress())
        return metadata.unsaved or metadata.record(self._number) != record

    def _image(self) -> _Image:
        """The maps of now."""
        brain = self._brain
        maps = brain.unsynchronized_map(), brain.state.staged.copy(), brain.state.left_out.blocks.copy()
        return _Image(self._header(), *maps, brain.state.replica.unfinished)

    def _header(self) -> MapHeader:
        state, brain = self._metadata.state, self._brain
        return MapHeader(state.uuid, state.geometry, brain.config.epoch, brain.state.acknowledged)

    def _answer(self, effect: ev.Persist, image: _Image, save: StateSave | None) -> ev.Persisted:
        """In the writer's thread, which has just seen to ``save``: without that state the map before it stays."""
        error = (save.error if save is not None else "") or self._tried(lambda: self._write(image))
        return ev.Persisted(effect.zero_quiet and not error, error, effect.cover, effect.number)

    def _tried(self, write: Callable[[], None]) -> str:
        """Why it could not be written; empty when it was."""
        try:
            write()
        except Exception as problem:  # also a fault of ours: a write without an answer would never end
            if not isinstance(problem, StateError):
                _log.exception("writing a map failed")
            return str(problem) or repr(problem)
        return ""

    def _write(self, image: _Image) -> None:
        """Ahead of the map what was left out, of which the map has been the only one to know that it was written; and the blocks
        that are on no map and in no image, for the status of a later run."""
        self._write_left_out(image.header, image.left_out)
        _keep_or_remove(self._staged, self._staged_path.exists(), image.header, image.staged)
        self._dirty.keep(image.header, image.dirty)


def _keep_or_remove(keeper: MapKeeper, exists: bool, header: MapHeader, blocks: DirtyMap) -> None:
    if blocks.any():
        keeper.keep(header, blocks)
    elif exists:
        keeper.remove()
