"""A device whose writes are never seen to complete is refused: its blocks would seem in flight for ever."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from pydbt.core.errors import UsageError
from pydbt.device import checks, retargeted
from pydbt.device.retargeted import unseen_completions


@pytest.fixture(autouse=True)
def block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As /sys/block with a namespace over two paths, and one of a controller without multipath."""
    for name in ("nvme0n1", "nvme0c0n1", "nvme0c1n1", "nvme0n2", "nvme1n1", "md0"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(retargeted, "_BLOCK", tmp_path)


def disk(name: str, *, bio_based: bool, path: str = "") -> SimpleNamespace:
    whole = SimpleNamespace(name=name, bio_based=bio_based, path=path or f"/dev/{name}", size_bytes=1 << 20)
    whole.disk = lambda: whole
    return whole


def test_the_head_of_nvme_multipath_and_its_partitions_are_named_with_their_paths() -> None:
    head = disk("nvme0n1", bio_based=True)
    part = SimpleNamespace(name="nvme0n1p1", bio_based=True, path="/dev/nvme0n1p1", disk=lambda: head)
    for device in (head, part):
        words = unseen_completions(device)
        assert words.startswith(f"{device.path} is the head of NVMe multipath (over nvme0c0n1, nvme0c1n1)")


@pytest.mark.parametrize(
    ("name", "bio_based"), [("nvme0n1", False), ("nvme0n2", True), ("nvme1n1", False), ("md0", True)]
)
def test_other_disks_complete_their_writes_in_sight(name: str, bio_based: bool) -> None:
    assert unseen_completions(disk(name, bio_based=bio_based)) == ""


def test_the_head_of_nvme_multipath_is_refused_as_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "require_root", lambda *_: None)
    monkeypatch.setattr(checks, "require_own_way", lambda *_: None)
    monkeypatch.setattr(checks.BlockDevice, "identify", lambda _: disk("nvme0n1", bio_based=True))
    with pytest.raises(UsageError, match="is the head of NVMe multipath"):
        checks.check_source("/dev/nvme0n1", tmp_path)
