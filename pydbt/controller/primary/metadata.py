"""The metadata of a running primary: what is written down of its volume and its secondaries, and how it changes."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydbt.core.errors import StateError
from pydbt.core.protocol.generations import Generations, lineage_of
from pydbt.posix.atomic import remove_file
from pydbt.store.secondary_record import SecondaryRecord
from pydbt.store.volume_state import VolumeState, save_state

_log = logging.getLogger("pydbt")


class Metadata:
    """``state`` is the content of the file, or will be as soon as the file can be written again."""

    def __init__(self, state_dir: Path, state: VolumeState) -> None:
        self.state_dir, self.state = state_dir, state
        self.unsaved = False
        self.problem = ""  # why it could not be written the last time

    def record(self, slot: int) -> SecondaryRecord:
        return self.state.record(slot)

    def change(self, **changes: Any) -> None:
        """Change fields of the volume; not written yet."""
        self.state = replace(self.state, **changes)

    def change_record(self, slot: int, **changes: Any) -> None:
        """Change fields of one secondary; not written yet."""
        self.state = self.state.with_record(replace(self.record(slot), **changes))

    def keep_generations(self, views: dict[int, Generations]) -> None:
        """Every secondary's view of the volume's generations. StateError when it cannot be written."""
        for slot, generations in views.items():
            first_alone = self.record(slot).first_alone
            if self.record(slot).generations.shared and not generations.shared:
                first_alone = datetime.now(UTC).isoformat(timespec="seconds")
            elif generations.shared:
                first_alone = ""
            self.change_record(slot, generations=generations, first_alone=first_alone)
        self.change(generations=lineage_of(list(views.values())))
        self.save()

    def add(self, address: str, epoch: int) -> SecondaryRecord:
        """A secondary that the volume never had, with the epoch of this run for it. StateError, and it is not there."""
        generations = lineage_of([self.state.generations])
        record = SecondaryRecord(
            self.state.free_slot(), address, later_epochs=[epoch], generations=generations,
            last_common=self.state.common_until, first_alone=self.state.alone_since,
        )  # fmt: skip
        for name in record.file_names:  # of one that was removed in the middle of it
            remove_file(self.state_dir / name)
        before, self.state = self.state, self.state.with_record(record)
        try:
            self.save()
        except StateError:
            self.state = before
            raise
        return record

    def remove(self, slot: int) -> None:
        """Forget a secondary, and its files after that. StateError when it cannot be written; then it is still there."""
        record = self.record(slot)
        before, self.state = self.state, self.state.without_record(slot)
        try:
            self.save()
        except StateError:
            self.state = before
            raise
        for name in record.file_names:
            with contextlib.suppress(StateError):  # the next secondary of this slot removes them
                remove_file(self.state_dir / name)

    def save(self) -> None:
        """Write it, durably. StateError when it cannot be: tried again soon, and before a map that counts on it is written."""
        self.unsaved = True
        try:
            save_state(self.state_dir, self.state)
        except StateError as error:
            self.problem = str(error)
            raise
        self.unsaved, self.problem = False, ""

    def save_if_possible(self) -> None:
        """The same; a failure is logged and nothing else is done."""
        try:
            self.save()
        except StateError as error:
            _log.error("%s", error)
