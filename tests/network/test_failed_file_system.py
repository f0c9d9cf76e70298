"""An image on a file system that has failed is a target that cannot be written: the secondary waits, and names it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pydbt.controller.control import call
from pydbt.core.errors import DeviceError
from pydbt.core.units import MIB
from pydbt.device.target import Target
from tests.lab.disks import image, loop_over, mounted
from tests.lab.patience import run, until
from tests.network.scripted import BLOCK, ScriptedPrimary, SecondaryProcess, blocks_frame

SIZE = 4 * MIB


def test_a_secondary_whose_file_system_shut_down_tells_it_and_lives(tmp_path: Path) -> None:
    with loop_over(image(tmp_path / "disk", 400 * MIB)) as disk:
        run("mkfs.xfs", "-q", disk)
        with mounted(disk, tmp_path / "mount") as point:
            file = image(point / "target.img", SIZE)
            with SecondaryProcess(tmp_path, SIZE, target=file, create_bytes=None) as secondary:
                with ScriptedPrimary(secondary.port, SIZE) as primary:
                    primary.synchronize([blocks_frame(1, {0: b"a" * BLOCK})], 1)
                run("xfs_io", "-x", "-c", "shutdown", point)
                until(lambda: call(secondary.state, {"command": "status"})["target_problem"], "it is told")
                report = call(secondary.state, {"command": "status"})
                assert report["replica_state"] == "inconsistent" and report["target_bytes"] == SIZE
                assert secondary.process is not None and secondary.process.poll() is None
                assert "Traceback" not in secondary.words()


@pytest.mark.parametrize("call", ["lseek", "fstat"])
def test_any_question_that_fails_on_a_failed_target_has_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    target = Target(str(image(tmp_path / "target.img", SIZE)))
    try:
        with monkeypatch.context() as patched:

            def stale(*_: object) -> object:
                raise OSError(116, "Stale file handle")

            patched.setattr(os, call, stale)
            asked = ("size_bytes",) if call == "lseek" else ("identity", "names", "modified_ns")
            for name in asked:
                with pytest.raises(DeviceError, match=f"^TARGET {target.path} cannot be looked at: Stale file handle$"):
                    getattr(target, name)
    finally:
        target.close()
