"""Programs replace others without a gap. A death in the middle leaves one set complete."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pydbt.core.errors import StateError
from pydbt.core.units import MIB
from pydbt.kernel import pins, syscalls
from pydbt.kernel.capture import Capture, CaptureOptions
from pydbt.kernel.replace import finish_replacement, replace, tracked_volume, tracked_words
from tests.lab.disks import loop_device
from tests.lab.patience import wait_until
from tests.lab.raw import write_blocks
from tests.lab.tracking import ADDRESSES, blocks_set, new_pin_dir, spec_of, wait_quiet

OTHER = CaptureOptions(header_ring_bytes=1 << 20, data_ring_bytes=0)


@pytest.fixture
def pin_dir() -> Iterator[Path]:
    folder = new_pin_dir()
    try:
        yield folder
    finally:
        Capture.remove_pins(folder)
        Capture.remove_pins(folder.with_name(folder.name + "-next"))


class Killed(BaseException):
    """Stands for a process that dies at that point."""


def dying(*_: object) -> None:
    raise Killed


def test_every_write_during_a_replacement_is_in_the_old_bits_or_in_the_new(tmp_path, pin_dir):
    with loop_device(tmp_path, 64 * MIB) as device:
        volume = spec_of(device)
        Capture.attach(volume, ADDRESSES, pin_dir).close()
        written, stop = [], threading.Event()

        def write() -> None:
            for block in itertools.cycle(range(volume.block_count)):
                if stop.is_set():
                    return
                write_blocks(device, 1, first=block)
                written.append(block)

        writer = threading.Thread(target=write)
        writer.start()
        kept: list[np.ndarray] = []
        try:
            capture = replace(volume, OTHER, pin_dir, kept.append)
            done = len(written)
            wait_until(lambda: len(written) > done + 10, "something was written after the new programs were there")
        finally:
            stop.set()
            writer.join()
        wait_quiet(capture)
        both = np.union1d(blocks_set(kept[0]), blocks_set(capture.active_words()))
        assert len(written) > 10
        assert np.setdiff1d(written, both).tolist() == []
        assert len(blocks_set(capture.active_words())), "nothing was written after the new programs were there"
        assert pins.read_meta(pin_dir).options == OTHER
        capture.detach()


def test_when_the_tracked_blocks_cannot_be_recorded_the_old_programs_stay(tmp_path, pin_dir):
    with loop_device(tmp_path, 16 * MIB) as device:
        Capture.attach(spec_of(device), ADDRESSES, pin_dir).close()
        write_blocks(device, 3)

        def fail(words: np.ndarray) -> None:
            raise StateError("no room")

        with pytest.raises(StateError, match="no room"):
            replace(spec_of(device), OTHER, pin_dir, fail)
        assert [entry.name for entry in pin_dir.parent.iterdir() if entry.name.startswith(pin_dir.name)] == [
            pin_dir.name
        ]
        write_blocks(device, 2, first=10)
        assert blocks_set(tracked_words(pin_dir)).tolist() == [0, 1, 2, 10, 11]


@pytest.mark.parametrize("at", ["keep", "remove", "middle of remove", "rename"])
def test_a_replacement_that_is_killed_leaves_programs_that_know_every_write(tmp_path, pin_dir, at, monkeypatch):
    with loop_device(tmp_path, 16 * MIB) as device:
        Capture.attach(spec_of(device), ADDRESSES, pin_dir).close()
        write_blocks(device, 3)
        kept: list[np.ndarray] = []
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Capture, "detach", Capture.close)  # the dead undo nothing
            keep: Callable[[np.ndarray], None] = kept.append
            if at == "keep":
                keep = dying
            elif at == "remove":
                real = pins.remove_pins
                patch.setattr(pins, "remove_pins", lambda folder: dying() if folder == pin_dir else real(folder))
            elif at == "middle of remove":
                patch.setattr(os, "rmdir", dying)
            else:
                patch.setattr(os, "rename", dying)
            replace(spec_of(device), OTHER, pin_dir, keep)
        write_blocks(device, 2, first=10)
        finish_replacement(pin_dir)
        assert tracked_volume(pin_dir) == spec_of(device)
        known = set(blocks_set(tracked_words(pin_dir)).tolist()).union(*(blocks_set(words).tolist() for words in kept))
        assert known >= {0, 1, 2, 10, 11}
        write_blocks(device, 1, first=20)
        assert 20 in blocks_set(tracked_words(pin_dir)), "nobody tracks any more"
        assert not pin_dir.with_name(pin_dir.name + "-next").exists()


def test_programs_without_their_links_are_not_taken_for_ones_that_track(tmp_path, pin_dir):
    with loop_device(tmp_path, 16 * MIB) as device:
        Capture.attach(spec_of(device), ADDRESSES, pin_dir).close()
        (pin_dir / "link_submit").unlink()
        with pytest.raises(StateError, match="incomplete"):
            Capture.reopen(pin_dir)


def test_a_detach_that_is_killed_leaves_nothing_that_looks_alive(tmp_path, pin_dir, monkeypatch):
    with loop_device(tmp_path, 16 * MIB) as device:
        capture = Capture.attach(spec_of(device), ADDRESSES, pin_dir)
        real, count = os.unlink, iter(range(100))
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(os, "unlink", lambda path, **more: real(path, **more) if next(count) < 2 else dying())
            capture.detach()
        assert Capture.reopen(pin_dir) is None
        assert tracked_volume(pin_dir) is None


def test_unknown_programs_are_named_and_not_used_in_part(tmp_path, pin_dir):
    with loop_device(tmp_path, 16 * MIB) as device:
        Capture.attach(spec_of(device), ADDRESSES, pin_dir).close()
        fd = syscalls.obj_get(pin_dir / "meta")
        syscalls.map_update(fd, 0, b'{"version": 7}'.ljust(pins.META_BYTES, b"\0"))
        os.close(fd)
        with pytest.raises(StateError, match="cannot be understood"):
            tracked_words(pin_dir)
