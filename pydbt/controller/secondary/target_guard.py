"""Notices that another program changed the target, while it is served and while it was not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import xxhash

from pydbt.core.errors import DeviceError, PydbtError, TargetChanged
from pydbt.core.secondary.target_watch import KeptLook, TargetLook, change_while_away, may_be_another, was_emptied
from pydbt.core.units import KIB
from pydbt.device.clean import write_counts
from pydbt.device.sysfs import BlockDevice
from pydbt.device.target import Target, gone
from pydbt.posix.boot import boot_id
from pydbt.store.look_file import LookFile

BEGINNING_BYTES = 68 * KIB
"""Of ext4, XFS and btrfs the superblock that a mount changes lies before this."""


class TargetGuard:
    """``away`` before the target is touched, then ``begin``. After that it is called from the applier's thread until ``end``.

    A block device shows changes by others only while nothing of ours is on its way, which is between ``end`` and ``away``; and
    its size always.
    """

    def __init__(self, state_dir: Path, target: Target) -> None:
        self._file, self._target = LookFile(state_dir), target
        self._kept: KeptLook | None = None

    def away(self, incarnation: int) -> str:
        """What others did to the target since the last process ended, as the end of a sentence; empty when nothing shows."""
        kept = self._file.load()
        return change_while_away(kept, incarnation, boot_id(), self._at_rest(), self._target.attachment) if kept else ""

    def may_be_another(self, incarnation: int) -> bool:
        """Whether a device without a lasting name looks like another one than before the machine was started again."""
        return may_be_another(self._file.load(), incarnation, boot_id(), self._at_rest())

    def begin(self, incarnation: int) -> None:
        """From here on the target is ours alone."""
        self._kept = KeptLook(incarnation, boot_id(), self._look(), writing=self._target.is_block_device)
        self._file.save(self._kept)

    def check(self) -> None:
        """TargetChanged when another program changed the target since the last write of ours."""
        if self._kept is None:
            return
        self._require_present(self._kept)
        changed = (
            self._kept.changed
            or (self._kept.emptied is not None and was_emptied(self._kept, self._kept.boot, self._target.attachment))
            or self._seen(self._kept).change_since(self._kept.look)
        )
        if changed:
            self._remember(replace(self._kept, changed=changed))
            raise TargetChanged(f"TARGET {self._target.path} {changed}, while it was a replica")

    def _require_present(self, kept: KeptLook) -> None:
        """DeviceError when the disk is gone, or the file has another name, which says nothing about its content.

        Its size is 0 then, as that of one that was cut short to nothing: which of the two it was shows when it is back.
        """
        self._target.require_named()
        attachment = self._target.attachment_at_open
        if not self._target.is_block_device or self._target.size_bytes or attachment is None:
            return
        if kept.emptied != attachment:
            self._remember(replace(kept, emptied=attachment))
        raise DeviceError(gone(self._target.path))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """While the target is written; TargetChanged before or after it."""
        self.check()
        if self._kept is None or self._target.is_block_device:
            yield
            self.check()
            return
        before = self._kept
        self._remember(replace(before, writing=True))
        yield
        look = self._look()
        if look.size_bytes < before.look.size_bytes:
            self.check()
        self._remember(replace(before, look=look, writing=False))

    def end(self) -> None:
        """Nothing of ours is written any more: leave a look that holds after a power loss, if the target can be synced."""
        try:
            self.check()
            if self._kept is not None and (not self._kept.writing or self._target.is_block_device):
                self._target.sync_whole()
                self._remember(replace(self._kept, look=self._at_rest(), writing=False, durable=True))
        except DeviceError:
            pass  # the kept look says what is known, or that nothing is
        self._file.close()

    def _remember(self, kept: KeptLook) -> None:
        self._kept = kept
        self._file.save(kept)

    def _seen(self, kept: KeptLook) -> TargetLook:
        """What tells of others. A write of ours that failed may have changed a file too: then its size alone does."""
        return TargetLook(self._target.size_bytes) if kept.writing else self._look()

    def _look(self) -> TargetLook:
        return TargetLook(self._target.size_bytes, self._target.modified_ns)

    def _at_rest(self) -> TargetLook:
        """A look at more, while nothing is on its way."""
        look = self._look()
        if self._target.is_block_device and not look.size_bytes and self._target.attachment_at_open is not None:
            raise DeviceError(gone(self._target.path))
        beginning = memoryview(bytearray(min(BEGINNING_BYTES, look.size_bytes)))
        try:
            self._target.read_into(0, beginning)
            written = write_counts(BlockDevice.identify(self._target.path)) if self._target.is_block_device else None
        except PydbtError:
            return look
        return replace(look, written=written, beginning=xxhash.xxh3_128_hexdigest(beginning))
