"""A controller that died leaves tracking behind; taking it away loses nothing."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pydbt.controller.control import ControlServer, write_saved_status
from pydbt.controller.primary.leftover import detach_leftover, pin_dir_of, warn_of_others
from pydbt.controller.primary.stopped import with_present_figures
from pydbt.controller.registry import forget, registered_primary
from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.units import MIB
from pydbt.device.sysfs import BlockDevice
from pydbt.kernel.capture import Capture, CaptureOptions, VolumeSpec
from pydbt.posix.boot import boot_id
from pydbt.store.map_file import load_map, save_map
from pydbt.store.map_image import MapHeader
from pydbt.store.secondary_record import MAP_FILE_NAME, SecondaryRecord
from pydbt.store.volume_state import VolumeState, create_state, save_state
from tests.lab.disks import image, loop_over
from tests.lab.patience import run, until
from tests.lab.programs import command

BLOCK = 4096


def _track(disk: str, state_dir: Path) -> tuple[VolumeState, Capture]:
    """A volume being tracked, as a controller begins it."""
    if not os.path.ismount("/sys/fs/bpf"):
        run("mount", "-t", "bpf", "-o", "mode=0700", "bpf", "/sys/fs/bpf")
    device = BlockDevice.identify(disk)
    state = create_state(device, BLOCK).with_record(SecondaryRecord(1, "127.0.0.1:1"))
    state_dir.mkdir()
    save_state(state_dir, state)
    save_map(state_dir / MAP_FILE_NAME, MapHeader(state.uuid, state.geometry), DirtyMap(state.geometry.block_count))
    volume = VolumeSpec(
        disk_major=device.disk_major,
        disk_minor=device.disk_minor,
        start_sector=device.start_sector,
        size_sectors=device.size_sectors,
        block_bytes=BLOCK,
        bio_based=device.bio_based,
    )
    options = CaptureOptions(header_ring_bytes=MIB, data_ring_bytes=0, payload=False)
    return state, Capture.attach(volume, options, pin_dir_of(state))


def _write(disk: str, block: int) -> None:
    run("dd", "if=/dev/zero", f"of={disk}", f"bs={BLOCK}", f"seek={block}", "count=1", "oflag=direct", "status=none")


def test_down_keeps_every_block_that_a_dead_controller_had_tracked(tmp_path: Path, disk: str) -> None:
    state, capture = _track(disk, tmp_path / "state")
    pins = pin_dir_of(state)
    try:
        _write(disk, 7)
        capture.flip()
        _write(disk, 2003)
        capture.close()
        command("status", "--state", tmp_path / "state").refused(9, "no controller is running", "still tracked")
        outcome = command("down", "--state", tmp_path / "state")
        assert outcome.code == 0 and "detached now" in outcome.output, outcome
        assert not pins.exists()
        loaded = load_map(tmp_path / "state" / MAP_FILE_NAME)
        assert loaded is not None and loaded[0].volume == state.uuid
        firsts, counts = loaded[1].extents()
        assert list(zip(firsts.tolist(), counts.tolist(), strict=True)) == [(7, 1), (2003, 1)]
        assert command("down", "--state", tmp_path / "state").output == "nothing was running\n"
    finally:
        Capture.remove_pins(pins)


def test_the_programs_of_the_other_side_on_this_machine_are_not_those_of_a_promoted_replica(
    tmp_path: Path, disk: str
) -> None:
    """Both sides have the volume's name, and so have their programs: the device tells whose they are."""
    state, capture = _track(disk, tmp_path / "state")
    pins, replica = pin_dir_of(state), tmp_path / "replica"
    replica.mkdir()
    try:
        capture.close()
        with loop_over(image(tmp_path / "target.img", 16 * MIB)) as target:
            device = BlockDevice.identify(str(target))
            promoted = replace(
                state, source_path=device.path, source=device.identity(), secondaries=(), boot_id=boot_id(),
                disk_sequence=device.disk_sequence(),
            )  # fmt: skip
            save_state(replica, promoted)
            write_saved_status(replica, {"role": "primary", "mode": "stopped", "secondaries": []})
            told = command("status", "--state", replica)
            assert told.code == 9 and "no controller is running" in told.errors and "tracked" not in told.errors, told
            assert not with_present_figures(replica, {"role": "primary", "secondaries": []})["tracked"]
            command("status", "--state", tmp_path / "state").refused(9, "no controller is running", "still tracked")
            with registered_primary(BlockDevice.identify(disk), tmp_path / "state"):
                pass  # its run was killed since
            assert command("down", "--state", replica).output == "nothing was running\n" and pins.exists()
            assert not detach_leftover(replica) and pins.exists(), "as by a demotion"
        assert command("down", "--state", replica).output == "nothing was running\n" and pins.exists(), "it is gone"
        forget(BlockDevice.identify(disk))
        assert "detached now" in command("down", "--state", replica).output and not pins.exists(), (
            "nobody else knows them"
        )
    finally:
        Capture.remove_pins(pins)


def test_no_programs_are_those_of_a_promoted_image_file(tmp_path: Path, disk: str) -> None:
    state, capture = _track(disk, tmp_path / "state")
    pins, replica = pin_dir_of(state), tmp_path / "replica"
    replica.mkdir()
    try:
        capture.close()
        target = image(tmp_path / "target.img", 16 * MIB)
        save_state(replica, replace(state, source_path=str(target), source={}, secondaries=()))
        told = command("status", "--state", replica)
        assert told.code == 9 and "no controller is running" in told.errors and "tracked" not in told.errors, told
    finally:
        Capture.remove_pins(pins)


def test_down_finds_the_programs_of_a_controller_that_died_between_two_names_for_them(
    tmp_path: Path, disk: str
) -> None:
    state, capture = _track(disk, tmp_path / "state")
    pins = pin_dir_of(state)
    passing = pins.with_name(pins.name + "-next")
    try:
        capture.close()
        pins.rename(passing)  # the old ones are gone, and these have not got their name yet
        _write(disk, 7)
        assert command("down", "--state", tmp_path / "state").code == 0
        assert not passing.exists() and not pins.exists()
        assert load_map(tmp_path / "state" / MAP_FILE_NAME)[1].contains(7)
    finally:
        Capture.remove_pins(passing)
        Capture.remove_pins(pins)


def test_down_makes_no_map_that_would_look_as_if_it_told_everything(tmp_path: Path, disk: str) -> None:
    state, capture = _track(disk, tmp_path / "state")
    capture.close()
    (tmp_path / "state" / MAP_FILE_NAME).unlink()
    try:
        assert command("down", "--state", tmp_path / "state").code == 0
        assert not (tmp_path / "state" / MAP_FILE_NAME).exists()
    finally:
        Capture.remove_pins(pin_dir_of(state))


def test_down_ends_tracking_that_cannot_be_read_any_more(tmp_path: Path, disk: str) -> None:
    state, capture = _track(disk, tmp_path / "state")
    pins = pin_dir_of(state)
    try:
        capture.close()
        (pins / "bits").unlink()
        outcome = command("down", "--state", tmp_path / "state")
        assert outcome.code == 0 and "compares the whole volume" in outcome.errors, outcome
        assert not pins.exists()
    finally:
        Capture.remove_pins(pins)


def test_down_with_a_torn_state_is_one_sentence_and_touches_nothing(tmp_path: Path, disk: str) -> None:
    state, capture = _track(disk, tmp_path / "state")
    pins = pin_dir_of(state)
    try:
        capture.close()
        file = tmp_path / "state" / "volume.json"
        os.truncate(file, file.stat().st_size // 2)
        command("down", "--state", tmp_path / "state").refused(7, str(file))
        assert pins.exists()
    finally:
        Capture.remove_pins(pins)


def test_down_with_a_torn_map_keeps_tracking(tmp_path: Path, disk: str) -> None:
    state, capture = _track(disk, tmp_path / "state")
    pins = pin_dir_of(state)
    try:
        capture.close()
        (tmp_path / "state" / MAP_FILE_NAME).write_bytes(b"PDBTMAP\0torn")
        command("down", "--state", tmp_path / "state").refused(7, MAP_FILE_NAME)
        assert pins.exists()
        reopened = Capture.reopen(pins)
        assert reopened is not None
        reopened.close()
    finally:
        Capture.remove_pins(pins)


def test_down_leaves_a_controller_alone_that_is_just_starting(tmp_path: Path, disk: str) -> None:
    state, capture = _track(disk, tmp_path / "state")
    pins = pin_dir_of(state)
    try:
        capture.close()
        with registered_primary(BlockDevice.identify(disk), tmp_path / "state"):
            command("down", "--state", tmp_path / "state").refused(4, "in use by another controller")
        assert pins.exists()
    finally:
        Capture.remove_pins(pins)


def test_down_finds_programs_by_their_device_when_the_state_directory_is_lost(tmp_path: Path, disk: str) -> None:
    state, capture = _track(disk, tmp_path / "state")
    pins = pin_dir_of(state)
    try:
        capture.close()
        shutil.rmtree(tmp_path / "state")
        listed = command("status")
        assert f"{disk} " in listed.output and f"down --volume {pins.name}" in listed.output, listed
        command("status", disk).refused(9, "programs that track it", f"controller down {disk}")
        outcome = command("down", disk)
        assert outcome.code == 0 and "detached now" in outcome.output and pins.name in outcome.output, outcome
        assert not pins.exists()
    finally:
        Capture.remove_pins(pins)


def test_programs_of_a_device_that_is_gone_are_taken_down_by_their_name(tmp_path: Path) -> None:
    with loop_over(image(tmp_path / "gone.img", 16 * MIB)) as disk:
        state, capture = _track(str(disk), tmp_path / "state")
        pins = pin_dir_of(state)
        capture.close()
    try:
        command("down", "--volume", "nonsense").refused(2, "no programs of a volume nonsense")
        # Another test may have a controller at a new device of this number.
        until(lambda: command("down", "--volume", pins.name).code == 0, "its number is nobody else's")
        assert not pins.exists()
    finally:
        Capture.remove_pins(pins)


def test_programs_of_a_device_that_has_a_controller_stay(tmp_path: Path, disk: str) -> None:
    state, capture = _track(disk, tmp_path / "state")
    pins = pin_dir_of(state)
    try:
        capture.close()
        with registered_primary(BlockDevice.identify(disk), tmp_path / "state"):
            command("down", "--volume", pins.name).refused(4, "in use by another controller")
        assert pins.exists()
    finally:
        Capture.remove_pins(pins)


def test_programs_of_a_lost_volume_go_beside_the_controller_of_another_one(
    tmp_path: Path, disk: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its state directory was lost, and the device was replicated anew: both volumes track it."""
    state, capture = _track(disk, tmp_path / "state")
    pins = pin_dir_of(state)
    try:
        capture.close()
        new = tmp_path / "new"
        new.mkdir()
        with (
            registered_primary(BlockDevice.identify(disk), new),
            ControlServer(new, lambda _, gone: {"role": "primary", "volume": "cd" * 16}),
        ):
            warn_of_others(pins.with_name("cd" * 16), BlockDevice.identify(disk))
            assert f"down --volume {pins.name}" in caplog.text
            assert command("down", "--volume", pins.name).code == 0
        assert not pins.exists()
        caplog.clear()
        warn_of_others(pins, BlockDevice.identify(disk))
        assert not caplog.records
    finally:
        Capture.remove_pins(pins)
