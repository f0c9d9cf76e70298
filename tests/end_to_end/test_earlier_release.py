"""A pair of the first release is upgraded, one side after the other, while its file system stays mounted and written."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import loop_device, make_filesystem, mounted
from tests.lab.load import write_files
from tests.lab.programs import ROOT

MIB = 1 << 20
SIZE = 256 * MIB
FIRST_RELEASE = "f2e0bb423835e2c1b0dc02f373c121073273f6ec"
"""The commit of 0.1.0: its CHANGELOG has nothing that is not released."""


@pytest.fixture(scope="module")
def first_release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Its source, out of the repository's history."""
    tree = tmp_path_factory.mktemp("first-release")
    archive = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "-C", ROOT, "archive", FIRST_RELEASE], capture_output=True, check=False
    )
    assert archive.returncode == 0, f"this test needs the whole history of the repository: {archive.stderr.decode()}"
    subprocess.run(["tar", "-x", "-C", tree], input=archive.stdout, check=True)
    yield tree


def upgrade(both: Cluster, side: str) -> None:
    if side == "secondary":
        assert both.secondary.terminate() == 0
        both.replica.tree = ROOT
    else:
        assert both.primary.terminate() == 0
        both.tree = ROOT


@pytest.mark.variant
@pytest.mark.parametrize("order", [("secondary", "primary"), ("primary", "secondary")], ids="-then-".join)
def test_both_sides_go_on_with_the_state_of_the_first_release_and_nothing_is_compared(
    tmp_path: Path, order: tuple[str, str], first_release: Path, chance: Random
) -> None:
    with loop_device(tmp_path, SIZE) as device, cluster(tmp_path / "c", device, plain=True) as both:
        make_filesystem("ext4", device.path)
        both.tree = both.replica.tree = first_release
        both.start()
        both.wait()
        with mounted(device, tmp_path / "mnt") as folder:
            write_files(folder, chance)
            both.wait()
            for side in order:
                upgrade(both, side)
                write_files(folder, chance)  # tracked by what the first release has left in the kernel
                both.start_secondary() if side == "secondary" else both.start_primary()
                both.wait()
                status = both.status()
                assert status is not None and not status["tainted"], status
                write_files(folder, chance)
                both.wait()
        both.wait()
        words = both.primary_log.read_text()
        assert "taint" not in words.lower(), words
        both.compare("after the upgrade of both sides")
