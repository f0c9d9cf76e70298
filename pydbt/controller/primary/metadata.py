"""The metadata of a running primary: what is written down of its volume and its secondaries, and how it changes.

It is written in the thread that writes the maps, one behind the other. So a map that counts on a state is written after it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydbt.controller.primary.map_writer import MapWriter
from pydbt.controller.primary.state_save import SaveEnded, StateSave
from pydbt.core.errors import StateError
from pydbt.core.protocol.generations import Generations, lineage_of
from pydbt.core.volume.saves import Saves
from pydbt.posix.atomic import remove_file
from pydbt.store.secondary_record import SecondaryRecord
from pydbt.store.volume_state import VOLUME_FILE_NAME, VolumeState

SAVE_STANDS_S = 10.0
"""A write of the state that takes longer is told of."""

_log = logging.getLogger("pydbt")


class Metadata:
    """``state`` is the content of the file, or will be as soon as the file can be written again. ``on_disk`` is its content, as
    far as the loop has heard: what people are told is taken from that.

    Called from the loop's thread alone. ``ended`` is given what ``post`` was called with.
    """

    def __init__(self, state_dir: Path, state: VolumeState) -> None:
        self.state_dir, self.state = state_dir, state
        self.on_disk = state
        self.saves = Saves()
        self.unsaved = False
        """Whether it has to be written although nothing has changed since it was asked for the last time."""
        self._problem = ""  # why it could not be written the last time
        self._leaving: set[int] = set()  # secondaries that are not written down any more
        self._open: dict[int, StateSave] = {}  # those that have not ended, by number
        self._writer: MapWriter | None = None
        self._post: Callable[[SaveEnded], None] = lambda ended: None

    def write_in(self, writer: MapWriter, post: Callable[[SaveEnded], None]) -> None:
        """From here on it is written there; ``post`` hands the loop, from any thread, what ``ended`` takes."""
        self._writer, self._post = writer, post

    @property
    def problem(self) -> str:
        """Why what is written down is old; empty when it is not."""
        oldest = next(iter(self._open.values()), None)
        if self._problem or oldest is None or time.monotonic() < oldest.asked_at + SAVE_STANDS_S:
            return self._problem
        path = self.state_dir / VOLUME_FILE_NAME
        return f"{path} is being written for more than {SAVE_STANDS_S:g} s: its disk does not answer"

    def record(self, slot: int) -> SecondaryRecord:
        return self.state.record(slot)

    def shown(self, slot: int) -> SecondaryRecord:
        """What people are told of a secondary: its record on the disk. Where it has none there, because it was removed together
        with another one that is forgotten before it, what is to be written."""
        return next((record for record in self.on_disk.secondaries if record.slot == slot), None) or self.record(slot)

    def change(self, **changes: Any) -> None:
        """Change fields of the volume; not written yet."""
        self.state = replace(self.state, **changes)

    def change_record(self, slot: int, **changes: Any) -> None:
        """Change fields of one secondary; not written yet."""
        self.state = self.state.with_record(replace(self.record(slot), **changes))

    def keep_generations(self, views: dict[int, Generations]) -> int:
        """Every secondary's view of the volume's generations; the number of the write that has them.

        Those that are not replicated to yet, or not any more, are written down as well, and have the volume's name like all.
        """
        for slot, generations in views.items():
            first_alone = self.record(slot).first_alone
            if self.record(slot).generations.shared and not generations.shared:
                first_alone = datetime.now(UTC).isoformat(timespec="seconds")
            elif generations.shared:
                first_alone = ""
            self.change_record(slot, generations=generations, first_alone=first_alone)
        lineage = lineage_of(list(views.values()))
        for record in self.state.secondaries:
            if record.slot not in views:
                self.change_record(record.slot, generations=record.generations.caught_up(lineage.current))
        self.change(generations=lineage)
        return self.save().number

    # --- secondaries --------------------------------------------------------------------------------------
    def add(self, address: str, epoch: int, then: Callable[[SecondaryRecord, str], None]) -> None:
        """A secondary that the volume never had, with the epoch of this run for it.

        ``then`` is told the record when that is on the disk; with an error it is not there.
        """
        generations = lineage_of([self.state.generations])
        record = SecondaryRecord(
            self.state.free_slot(), address, later_epochs=[epoch], generations=generations,
            last_common=self.state.common_until, first_alone=self.state.alone_since,
        )  # fmt: skip

        def clear() -> None:
            for name in record.file_names:  # of one that was removed in the middle of it
                remove_file(self.state_dir / name)

        removed, self.state = self.state.removed, self.state.with_record(record)

        def told(error: str) -> None:
            record, current = self.record(slot), lineage_of([self.state.generations])
            if error:
                self.state = replace(self.state.without_record(slot), removed=removed)
            elif record.generations != current:  # the volume has got another name meanwhile
                self.change_record(slot, generations=current)
                self.save(told)
                return
            then(record, error)

        slot = record.slot
        self.save(told, clear)

    def remove(self, slot: int, then: Callable[[str], None]) -> None:
        """Write the state without a secondary, which is in it until ``then`` was told that it is written."""
        self._leaving.add(slot)

        def told(error: str) -> None:
            self._leaving.discard(slot)
            if not error:
                self.state = self.state.without_record(slot)
            then(error)

        self.save(told)

    def remove_files(self, record: SecondaryRecord, forget_era: Callable[[], None]) -> None:
        """Of a secondary that was removed; behind every map that was to be written."""

        def work() -> None:
            with contextlib.suppress(StateError):
                forget_era()
            for name in record.file_names:
                with contextlib.suppress(StateError):  # the next secondary of this slot removes them
                    remove_file(self.state_dir / name)

        work() if self._writer is None else self._writer.submit(work)

    # --- writing ------------------------------------------------------------------------------------------
    def save(self, then: Callable[[str], None] | None = None, before: Callable[[], None] | None = None) -> StateSave:
        """Have it written as it is now, durably; ``then`` is told the error when it has ended.

        A failure is logged, and it is tried again soon. One that has not begun writes what is asked for now as well: whatever
        that counts on has been done by then.
        """
        self.unsaved = False
        state = self.state
        for slot in self._leaving:
            state = state.without_record(slot)
        newest = self.newest_open
        if before is not None or newest is None or not newest.take(state):
            newest = StateSave(self.saves.ask(), state, time.monotonic())
            self._begin(newest, before)
        if then is not None:
            newest.then(then)
            if newest.number not in self._open:
                newest.tell()
        return newest

    def _begin(self, save: StateSave, before: Callable[[], None] | None) -> None:
        if before is not None:
            save.first(before)
        self._open[save.number] = save

        def work() -> None:
            save.write(self.state_dir)
            self._post(SaveEnded(save.number, save.error))

        if self._writer is not None:
            self._writer.submit(work)
        else:
            work()
            self.ended(SaveEnded(save.number, save.error))

    def ended(self, ended: SaveEnded) -> None:
        """A write has ended."""
        save = self._open.pop(ended.number, None)
        if save is None:
            return  # of a run that ends: it was waited for
        if ended.error and ended.error != self._problem:
            _log.error("%s", ended.error)
        if not ended.error:
            self.on_disk = save.state
        self.unsaved, self._problem = self.unsaved or bool(ended.error), ended.error
        self.saves.ended(ended.number, well=not ended.error)
        save.tell()

    def save_now(self) -> None:
        """Write it, durably, behind everything that was asked for. StateError when it cannot be: nothing may count on it then."""
        if self._writer is not None:
            self._writer.wait()
        save = StateSave(0, self.state, time.monotonic())
        save.write(self.state_dir)
        self.unsaved, self._problem = bool(save.error), save.error
        if save.error:
            raise StateError(save.error)
        self.on_disk = save.state

    @property
    def newest_open(self) -> StateSave | None:
        """The newest write that has not ended, as far as the loop has heard."""
        return self._open.get(self.saves.asked)
