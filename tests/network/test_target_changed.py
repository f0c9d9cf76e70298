"""A change of a target by others, of its size or its content: it is not called consistent before all of it was compared."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.core.protocol.frames import Refuse
from tests.lab.disks import loop_over, mounted
from tests.lab.images import decaying
from tests.lab.patience import run, until
from tests.network.scripted import BLOCK, ScriptedPrimary, SecondaryProcess, blocks_frame, stream_frame

SIZE = 8 << 20


def block(fill: str) -> bytes:
    return fill.encode() * BLOCK


@pytest.fixture
def secondary(tmp_path: Path) -> Iterator[SecondaryProcess]:
    """One that is in sync, and whose target ends with a block of the volume."""
    with SecondaryProcess(tmp_path, SIZE) as running:
        with ScriptedPrimary(running.port, SIZE) as primary:
            primary.synchronize([blocks_frame(1, {0: block("a"), SIZE // BLOCK - 1: block("z")})], 1)
            primary.until(lambda: primary.ack.applied_sequence == 1, "it is on the target")
        yield running


def name_and_state(secondary: SecondaryProcess) -> tuple[str, str]:
    with ScriptedPrimary(secondary.port, SIZE) as primary:
        return primary.welcome.replica, primary.welcome.state


def cut_and_grown(target: Path) -> None:
    os.truncate(target, 4096)
    os.truncate(target, SIZE)


def written_over(target: Path) -> None:
    with target.open("r+b") as file:
        file.seek(SIZE // 2)
        file.write(b"of another program")


@pytest.mark.parametrize("ended", ["stopped", "killed"])
@pytest.mark.parametrize("change", [cut_and_grown, written_over])
def test_a_change_while_it_was_stopped_makes_it_another_replica(secondary, ended, change) -> None:
    before = name_and_state(secondary)
    assert before[1] == "consistent"
    secondary.kill() if ended == "killed" else secondary.stop()
    change(secondary.target)
    secondary.start()
    replica, state = name_and_state(secondary)
    assert replica != before[0] and state == "inconsistent"
    assert "not taken for a replica before all of it was compared" in secondary.words()


@pytest.mark.parametrize("ended", ["stopped", "killed"])
def test_without_a_change_it_goes_on_where_it_was(secondary, ended) -> None:
    before = name_and_state(secondary)
    for _ in range(2):
        secondary.kill() if ended == "killed" else secondary.stop()
        secondary.start()
        assert name_and_state(secondary) == before


def test_a_target_that_is_cut_short_is_refused_and_not_trusted_when_it_has_its_size_again(secondary) -> None:
    before = name_and_state(secondary)
    secondary.stop()
    (secondary.state / "target").unlink()  # as from a version that left no mark
    os.truncate(secondary.target, 4096)
    with pytest.raises(
        AssertionError, match="less than the volume's 8388608: give it its size again, and all of it is compared"
    ):
        secondary.start()
    assert secondary.process.wait(20) == 7
    os.truncate(secondary.target, SIZE)
    secondary.start()
    replica, state = name_and_state(secondary)
    assert replica != before[0] and state == "inconsistent"
    secondary.stop()
    with pytest.raises(AssertionError, match="cannot be promoted"):
        secondary.replay(promote=True)


def test_a_target_that_is_cut_short_while_it_is_served_is_noticed_without_a_write(secondary) -> None:
    before = name_and_state(secondary)
    os.truncate(secondary.target, 4096)
    until(lambda: "was cut short" in secondary.words(), "it is noticed")
    until(lambda: "give it its size again" in secondary.words(), "it says what to do")
    os.truncate(secondary.target, SIZE)
    until(lambda: name_of(secondary) not in ("", before[0]), "it serves again, as another replica", 40)
    assert name_and_state(secondary)[1] == "inconsistent"


def name_of(secondary: SecondaryProcess) -> str:
    with ScriptedPrimary(secondary.port, SIZE) as primary:
        return "" if isinstance(primary.answer, Refuse) or primary.answer is None else primary.answer.replica


@pytest.mark.parametrize("change", [cut_and_grown, written_over, lambda target: os.truncate(target, 4096)])
def test_a_write_behind_a_change_does_not_hide_it(secondary, change) -> None:
    before = name_and_state(secondary)
    with ScriptedPrimary(secondary.port, SIZE) as primary:
        primary.send(stream_frame(2, [(1, block("b"))]))
        primary.until(lambda: primary.ack.applied_sequence == 2, "it follows")
        time.sleep(0.05)  # the times of files have the grain of a tick
        change(secondary.target)
        primary.send(stream_frame(3, [(SIZE // BLOCK - 1, block("c"))]))
        assert primary.hear(Refuse).code == "target-error"
    if secondary.target.stat().st_size < SIZE:
        os.truncate(secondary.target, SIZE)
    until(lambda: name_of(secondary) not in ("", before[0]), "it serves again, as another replica", 40)


def test_after_a_whole_copy_it_is_consistent_again_and_stays_so(secondary) -> None:
    secondary.stop()
    cut_and_grown(secondary.target)
    secondary.start()
    with ScriptedPrimary(secondary.port, SIZE) as primary:
        primary.synchronize([blocks_frame(1, {0: block("a"), SIZE // BLOCK - 1: block("z")})], 5)
    before = name_and_state(secondary)
    assert before[1] == "consistent"
    secondary.stop()
    secondary.start()
    assert name_and_state(secondary) == before


def test_a_copy_of_the_image_may_be_replayed_whatever_its_times_are(secondary, tmp_path) -> None:
    secondary.stop()
    shutil.copytree(secondary.state, tmp_path / "copied-state")
    shutil.copyfile(secondary.target, tmp_path / "copy")
    replayed = secondary.replay(target=tmp_path / "copy", state_dir=tmp_path / "copied-state")
    assert replayed.startswith("consistent at sequence 1")
    assert secondary.replay().startswith("consistent at sequence 1")


def test_decay_is_no_change_by_a_program(secondary) -> None:
    before = name_and_state(secondary)
    secondary.stop()
    with decaying(secondary.target):
        written_over(secondary.target)
    secondary.start()
    assert name_and_state(secondary) == before, "the harness changed the image in a way that shows"


@pytest.mark.parametrize("change", ["written", "mounted", "nothing"])
def test_a_block_device_that_was_used_meanwhile_is_another_replica(tmp_path, change) -> None:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    run("mkfs.ext4", "-q", "-F", image)
    content = image.read_bytes()
    with (
        loop_over(image) as device,
        SecondaryProcess(tmp_path, len(content), target=device.path, create_bytes=None) as secondary,
    ):
        with ScriptedPrimary(secondary.port, len(content)) as primary:
            blocks = {n: content[n * BLOCK : (n + 1) * BLOCK] for n in range(len(content) // BLOCK)}
            used = {n: data for n, data in blocks.items() if data.strip(b"\0")}
            primary.synchronize([blocks_frame(1, used)], 1)
            before = primary.welcome.replica
        secondary.stop()
        if change == "written":
            with open(device.path, "r+b") as disk:
                disk.seek(32 << 20)
                disk.write(b"of another program")
        elif change == "mounted":
            with mounted(device, tmp_path / "mount") as folder:
                (folder / "file").write_text("of another program")
        secondary.start()
        with ScriptedPrimary(secondary.port, len(content)) as primary:
            assert (primary.welcome.replica != before) == (change != "nothing")
            assert primary.welcome.state == ("consistent" if change == "nothing" else "inconsistent")
