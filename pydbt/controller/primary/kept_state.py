"""What a running primary has written down of its volume and its secondaries, and how it changes."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydbt.core.errors import StateError
from pydbt.core.protocol.generations import Generations, lineage_of
from pydbt.store.atomic import remove_file
from pydbt.store.secondary_record import SecondaryRecord
from pydbt.store.volume_state import VolumeState, save_state

_log = logging.getLogger("pydbt")


class KeptState:
    """``volume`` is what the file says, or will say as soon as it can be written again."""

    def __init__(self, state_dir: Path, volume: VolumeState) -> None:
        self.state_dir, self.volume = state_dir, volume
        self.unsaved = False

    def record(self, slot: int) -> SecondaryRecord:
        return self.volume.record(slot)

    def change(self, **changes: Any) -> None:
        """Change what concerns the volume; not written yet."""
        self.volume = replace(self.volume, **changes)

    def change_record(self, slot: int, **changes: Any) -> None:
        """Change what concerns one secondary; not written yet."""
        self.volume = self.volume.with_record(replace(self.record(slot), **changes))

    def keep_lineage(self, views: dict[int, Generations]) -> None:
        """Every secondary's view of what the volume has been through. StateError when it cannot be written."""
        for slot, generations in views.items():
            self.change_record(slot, generations=generations)
        self.change(generations=lineage_of(list(views.values())))
        self.save()

    def add(self, address: str, epoch: int) -> SecondaryRecord:
        """A secondary that the volume never had, with the epoch of this run for it. StateError, and it is not there."""
        generations = lineage_of([self.volume.generations])
        record = SecondaryRecord(self.volume.free_slot(), address, later_epochs=[epoch], generations=generations)
        for name in record.file_names:  # of one that was removed in the middle of it
            remove_file(self.state_dir / name)
        before, self.volume = self.volume, self.volume.with_record(record)
        try:
            self.save()
        except StateError:
            self.volume = before
            raise
        return record

    def remove(self, slot: int) -> None:
        """Forget a secondary, and its files after that. StateError when it cannot be written; then it is still there."""
        record = self.record(slot)
        before, self.volume = self.volume, self.volume.without_record(slot)
        try:
            self.save()
        except StateError:
            self.volume = before
            raise
        for name in record.file_names:
            with contextlib.suppress(StateError):  # whoever gets the slot next removes them
                remove_file(self.state_dir / name)

    def save(self) -> None:
        """Write it, durably. StateError when it cannot be: tried again soon, and before a map that counts on it is written."""
        self.unsaved = True
        save_state(self.state_dir, self.volume)
        self.unsaved = False

    def save_if_possible(self) -> None:
        """The same, where a failure is told and nothing else."""
        try:
            self.save()
        except StateError as error:
            _log.error("%s", error)
