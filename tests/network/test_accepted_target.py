"""A state directory and a target under other names, or a copy of it: refused, and taken when that was asked for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pydbt.store.look_file import LookFile
from pydbt.store.replica_state import load_record, save_record
from pydbt.store.target_names import TARGET_NAMES_NAME, load_target_names, save_target_names
from tests.lab.disks import loop_device
from tests.lab.programs import command
from tests.network.scripted import BLOCK, ScriptedPrimary, SecondaryProcess, blocks_frame, stream_frame

SIZE = 8 << 20
REFUSED = "belongs to another target .*--accept-target"


def block(fill: str) -> bytes:
    return fill.encode() * BLOCK


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    with loop_device(tmp_path / "first", SIZE) as first, loop_device(tmp_path / "copy", SIZE) as copy:
        yield first.path, copy.path


@pytest.fixture
def stopped(tmp_path: Path, devices: tuple[Path, Path]) -> Iterator[SecondaryProcess]:
    """One whose copy lacks a write that is in its journal, acknowledged, and that was killed."""
    first, copy = devices
    with SecondaryProcess(tmp_path, SIZE, target=first, create_bytes=None) as secondary:
        with ScriptedPrimary(secondary.port, SIZE) as primary:
            primary.synchronize([blocks_frame(1, {0: block("a")})], 10)
            primary.until(lambda: primary.ack.applied_sequence == 10, "it is on the target")
            before = first.read_bytes()
            primary.send(stream_frame(11, [(1, block("b"))]))
            primary.until(lambda: primary.ack.sequence == 11, "it is durable in the journal")
        secondary.kill()
        _write(copy, before)
        yield secondary


def _write(device: Path, content: bytes) -> None:
    with device.open("r+b") as file:
        file.write(content)


def test_a_copy_on_another_device_gets_the_journal_and_is_promoted_when_it_is_accepted(stopped, devices) -> None:
    _, copy = devices
    before = copy.read_bytes()
    for options in ({"promote": True}, {}):
        with pytest.raises(AssertionError, match=REFUSED):
            stopped.replay(target=copy, **options)
    assert copy.read_bytes() == before
    assert "finished at sequence 11" in stopped.replay(target=copy, promote=True, accept_target=True)
    assert copy.read_bytes()[: 2 * BLOCK] == block("a") + block("b")


def test_a_copy_that_got_the_journal_is_its_target_from_then_on_and_compared_as_a_whole(stopped, devices) -> None:
    first, copy = devices
    replica = load_record(stopped.state).replica
    assert stopped.replay(target=copy, accept_target=True).startswith("consistent at sequence 11")
    with pytest.raises(AssertionError, match=REFUSED):
        stopped.start(target=first)
    stopped.start(target=copy)
    with ScriptedPrimary(stopped.port, SIZE) as primary:
        assert primary.welcome.replica != replica and primary.welcome.state == "consistent"


def test_an_accepted_copy_that_is_served_is_inconsistent_until_all_of_it_was_compared(stopped, devices) -> None:
    _, copy = devices
    replica = load_record(stopped.state).replica
    names = []
    for accept in (True, False, True):
        stopped.start(target=copy, accept_target=accept)
        with ScriptedPrimary(stopped.port, SIZE) as primary:
            assert primary.welcome.replica != replica and primary.welcome.state == "inconsistent"
            names.append(primary.welcome.replica)
        assert stopped.stop() == 0
    assert len(set(names)) == 1, "to accept the target that it has changes nothing"


def test_the_same_disk_is_known_by_each_of_its_names(stopped, devices) -> None:
    first, _ = devices
    record = load_record(stopped.state)
    (kept,) = load_target_names(stopped.state, record.target).values()
    assert kept == record.target
    earlier = "block-device:slot:0000:00:05.0"
    save_record(stopped.state, replace(record, target=earlier))
    with pytest.raises(AssertionError, match=REFUSED):
        stopped.start(target=first)
    save_target_names(stopped.state, earlier, {"slot": earlier, "backing_file": kept})
    stopped.start(target=first)
    with ScriptedPrimary(stopped.port, SIZE) as primary:
        assert (primary.welcome.replica, primary.welcome.state) == (record.replica, "consistent")
    assert load_record(stopped.state).target == earlier


def test_a_device_that_is_accepted_although_it_has_lost_a_name_is_the_target_from_then_on(stopped, devices) -> None:
    first, _ = devices
    record = load_record(stopped.state)
    (stopped.state / TARGET_NAMES_NAME).unlink()
    save_target_names(stopped.state, record.target, {"serial": "block-device:S"})
    with pytest.raises(AssertionError, match=REFUSED):
        stopped.start(target=first)
    stopped.start(target=first, accept_target=True)
    assert stopped.stop() == 0
    stopped.start(target=first)


def test_the_state_of_an_earlier_version_has_one_name(stopped, devices) -> None:
    first, copy = devices
    (stopped.state / TARGET_NAMES_NAME).unlink()
    with pytest.raises(AssertionError, match=REFUSED):
        stopped.start(target=copy)
    stopped.start(target=first)
    assert load_target_names(stopped.state, load_record(stopped.state).target)


def test_a_device_without_a_name_that_looks_different_after_a_boot_is_refused(stopped, devices) -> None:
    first, copy = devices
    stopped.start(target=first)
    assert stopped.stop() == 0
    save_record(stopped.state, replace(load_record(stopped.state), target="block-device:"))
    (stopped.state / TARGET_NAMES_NAME).unlink()
    _as_of_another_boot(stopped.state)
    kept = shutil.copytree(stopped.state, stopped.state.with_name("kept"))
    _write(copy, block("x"))
    with pytest.raises(AssertionError, match=REFUSED):
        stopped.start(target=copy)
    shutil.rmtree(stopped.state)
    shutil.copytree(kept, stopped.state)
    stopped.start(target=first)
    with ScriptedPrimary(stopped.port, SIZE) as primary:
        assert primary.welcome.state == "consistent"


def _as_of_another_boot(state: Path) -> None:
    file = LookFile(state)
    kept = file.load()
    assert kept is not None and kept.durable
    file.save(replace(kept, boot="another boot"))
    file.close()


def test_promote_accepts_a_copy_when_that_was_typed_and_no_secondary_is_running_on_the_target_it_had(
    stopped, devices
) -> None:
    first, copy = devices
    arguments = ("promote", copy, "--state", stopped.state)
    done = command(*arguments)
    assert done.code == 2 and "--accept-target" in done.errors, done
    stopped.start(target=first)
    done = command(*arguments, "--accept-target")
    assert done.code == 4 and "is running" in done.errors, done
    assert stopped.process.poll() is None
    stopped.kill()
    _write(copy, first.read_bytes())
    done = command(*arguments, "--accept-target", "--force")  # its scripted primary was heard a moment ago
    assert done.code == 0 and "finished at sequence 11" in done.output, done
    assert copy.read_bytes()[BLOCK : 2 * BLOCK] == block("b")
