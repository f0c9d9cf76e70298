"""Comparisons see the content of the target's disk, also after a write that the disk refused."""

from __future__ import annotations

import errno
import os

import pytest

from pydbt.core.errors import DeviceError
from pydbt.device.target import Target


class Cache:
    """In the place of the kernel's: what was done about it, in order; a sync fails while ``fails`` is set."""

    def __init__(self, monkeypatch) -> None:
        self.done: list[str] = []
        self.fails = False
        monkeypatch.setattr(os, "fdatasync", self.sync)
        monkeypatch.setattr(os, "posix_fadvise", self.advise)

    def sync(self, descriptor: int) -> None:
        self.done.append("sync")
        if self.fails:
            raise OSError(errno.EIO, "Input/output error")

    def advise(self, descriptor: int, offset: int, length: int, advice: int) -> None:
        assert (offset, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED)
        self.done.append("drop")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    (tmp_path / "image").write_bytes(bytes(1 << 20))
    return Cache(monkeypatch)


def test_after_a_failed_sync_the_page_cache_is_dropped(cache, tmp_path):
    target = Target(str(tmp_path / "image"))
    cache.done.clear()
    cache.fails = True
    with pytest.raises(DeviceError, match="cannot be synced"):
        target.sync()
    assert cache.done == ["sync", "drop"]
    target.close()


@pytest.mark.parametrize("fails", [False, True])
def test_cached_writes_of_a_killed_process_are_synced_or_dropped_before_any_comparison(cache, tmp_path, fails):
    cache.fails = fails
    target = Target(str(tmp_path / "image"))
    assert cache.done in (["sync", "drop"], ["sync", "drop", "drop"])
    target.close()
