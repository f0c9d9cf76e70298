"""The files that keep other programs off targets: written whole, only when they differ, and gone with the last target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pydbt.controller.protection import Protection, Replica, release_target, renew_initramfs, take_effect, write_rules
from pydbt.core.configured.target_rules import LVM_FILE, LVM_MAIN_FILE, RULES_FILE
from pydbt.core.errors import StateError
from pydbt.core.units import MIB
from pydbt.device.sysfs import BlockDevice
from pydbt.device.target_names import target_rule
from tests.controller.test_holding import keep_record
from tests.lab.disks import Device, image, loop_device, loop_over, make_filesystem, mounted, partition_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for folder in ("etc/udev/rules.d", "etc/lvm"):
        (root / folder).mkdir(parents=True)
    (root / LVM_FILE).write_text("local {\n}\n")
    (root / LVM_FILE).chmod(0o640)
    return root


LINK = "/dev/disk/by-id/pydbt-test"


@pytest.fixture(autouse=True)
def link(monkeypatch: pytest.MonkeyPatch) -> None:
    """As udev makes it for the disks of machines, and not for loop devices."""
    monkeypatch.setattr(
        "pydbt.controller.protection.target_rule", lambda *words: replace(target_rule(*words), links=(LINK,))
    )


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Device]:
    with loop_device(tmp_path, 32 * MIB) as device:
        yield device


def replica(disk: object, tmp_path: Path, name: str = "data") -> Replica:
    """One whose secondary has started once."""
    keep_record(disk, tmp_path / f"{name}.state")
    return Replica(name, Path(str(disk)), tmp_path / f"{name}.state")


def rules(root: Path) -> str:
    return (root / RULES_FILE).read_text()


def test_the_rules_are_written_once_and_removed_with_the_last_target(root: Path, disk: Device, tmp_path: Path) -> None:
    before = (root / LVM_FILE).read_text()
    done = write_rules([replica(disk, tmp_path)], root)
    assert {path.name for path in done.changed} == {Path(RULES_FILE).name, "lvmlocal.conf"}
    assert "ATTR{loop/backing_file}" in rules(root) and (root / RULES_FILE).stat().st_mode & 0o777 == 0o644
    assert (root / LVM_FILE).stat().st_mode & 0o777 == 0o640 and LINK in (root / LVM_FILE).read_text()
    assert done.devices == [str(disk)]
    again = write_rules([replica(disk, tmp_path)], root)
    assert again.changed == [] and again.rules == done.rules and again.devices == []
    over = write_rules([], root)
    assert not (root / RULES_FILE).exists() and (root / LVM_FILE).read_text() == before
    assert over.devices == [str(disk)], "udev looks at it again"
    assert not [path for path in root.rglob("*") if path.name.endswith(".new")]


def test_a_target_whose_disk_is_away_keeps_its_rule(root: Path, tmp_path: Path) -> None:
    with loop_device(tmp_path, 32 * MIB) as disk:
        made = write_rules([replica(disk, tmp_path)], root).rules
    gone = Replica("data", Path("/dev/pydbt-test-none"), tmp_path / "data.state")
    text = rules(root).replace(str(disk), str(gone.target))
    (root / RULES_FILE).write_text(text)
    done = write_rules([gone], root)
    assert [one.match for one in done.rules] == [one.match for one in made] and RULES_FILE not in map(str, done.changed)
    assert rules(root) == text
    other = write_rules([Replica("data", Path("/dev/pydbt-test-other"), tmp_path / "data.state")], root)
    assert not other.rules and "No such file" in other.problems[0]


def test_a_partition_is_named_and_its_neighbours_are_not(root: Path, disk: Device, tmp_path: Path) -> None:
    with partition_of(disk, 2, 2048, 20480) as part:
        write_rules([replica(part, tmp_path)], root)
    assert 'ATTR{partition}=="2", ATTRS{loop/backing_file}' in rules(root)


def test_a_mounted_target_gets_no_rule_since_systemd_would_unmount_it(root: Path, disk: Device, tmp_path: Path) -> None:
    make_filesystem("ext4", disk)
    with mounted(disk, tmp_path / "mount"):
        done = write_rules([replica(disk, tmp_path)], root)
    assert not done.rules and "mounted" in done.problems[0] and not (root / RULES_FILE).exists()


def test_a_target_that_was_mounted_in_spite_of_its_rule_keeps_the_rule_for_the_next_boot(
    root: Path, disk: Device, tmp_path: Path
) -> None:
    made = write_rules([replica(disk, tmp_path)], root)
    make_filesystem("ext4", disk)
    with mounted(disk, tmp_path / "mount"):
        done = write_rules([replica(disk, tmp_path)], root)
    assert done.rules == made.rules and not done.changed and "despite its rule" in done.problems[0]


def test_a_mounted_target_keeps_its_rule_by_whichever_name_it_is_configured_now(
    root: Path, disk: Device, tmp_path: Path
) -> None:
    made = write_rules([replica(disk, tmp_path)], root)
    (tmp_path / "link").symlink_to(str(disk))
    make_filesystem("ext4", disk)
    with mounted(disk, tmp_path / "mount"):
        done = write_rules([replica(tmp_path / "link", tmp_path)], root)
    assert done.rules == made.rules and not done.changed


@pytest.mark.parametrize("damage", ["never there", "torn"])
def test_without_a_record_that_can_be_read_no_rule_is_made_and_one_that_is_there_stays(
    root: Path, disk: Device, tmp_path: Path, damage: str
) -> None:
    """The disk may be a volume of this machine: a wrong target, or one that was promoted and whose state is not mounted yet."""
    one = replica(disk, tmp_path)
    made = write_rules([one], root)
    if damage == "torn":
        (one.state_dir / "replica.json").write_bytes(b"{")
    else:
        (one.state_dir / "replica.json").unlink()
    done = write_rules([one], root)
    assert done.rules == made.rules and not done.changed and "stays" in done.problems[0]
    other = write_rules([Replica("data", Path("/dev/loop-control"), one.state_dir)], root)
    assert not other.rules, "a rule for a disk that the file names no more is none of this target"
    (root / RULES_FILE).unlink(missing_ok=True)
    done = write_rules([one], root)
    assert not done.rules and not (root / RULES_FILE).exists() and LINK not in (root / LVM_FILE).read_text()
    assert "no rule is made" in done.problems[0]


def test_a_rule_goes_with_a_promotion_also_when_the_disk_is_away(root: Path, disk: Device, tmp_path: Path) -> None:
    one = replica(disk, tmp_path)
    write_rules([one], root)
    keep_record(disk, one.state_dir, "2026-01-01T00:00:00+00:00")
    done = write_rules([Replica("data", Path("/dev/pydbt-test-none"), one.state_dir)], root)
    assert not done.rules and not done.problems and not (root / RULES_FILE).exists()


def test_another_disk_at_the_path_gets_no_rule(root: Path, disk: Device, tmp_path: Path) -> None:
    one = replica(disk, tmp_path)
    with loop_device(tmp_path, 32 * MIB) as wrong:
        done = write_rules([Replica("data", Path(str(wrong)), one.state_dir)], root)
    assert not done.rules and "another disk" in done.problems[0]


def test_a_rule_that_hits_another_disk_as_well_is_refused_and_one_that_is_there_goes(
    root: Path, disk: Device, tmp_path: Path
) -> None:
    """As two disks of one serial number: here two devices of one file."""
    one = replica(disk, tmp_path)
    write_rules([one], root)
    file = Path(f"/sys/block/{Path(str(disk)).name}/loop/backing_file").read_text().strip()
    with loop_over(Path(file)) as twin:
        assert str(twin) != str(disk)
        done = write_rules([one], root)
    assert not done.rules and not (root / RULES_FILE).exists() and str(twin) in done.problems[0]


def test_a_rule_whose_disk_is_away_and_that_hits_another_one_goes(root: Path, tmp_path: Path) -> None:
    """A port, or a slot, in which another disk is now."""
    with loop_device(tmp_path, 32 * MIB) as old, loop_device(tmp_path, 32 * MIB) as new:
        one = replica(old, tmp_path)
        write_rules([one], root)
        file = [f"/sys/block/{Path(str(disk)).name}/loop/backing_file" for disk in (old, new)]
        texts = [Path(path).read_text().strip() for path in file]
        (root / RULES_FILE).write_text(rules(root).replace(*texts).replace(str(old), str(new)))
        done = write_rules([Replica("data", Path(str(new)), one.state_dir)], root)
    assert not done.rules and str(new) in done.problems[-1]


def test_the_disk_of_the_root_file_system_is_never_hidden(
    root: Path, disk: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = replica(disk, tmp_path)
    write_rules([one], root)
    number = BlockDevice.identify(str(disk)).number
    monkeypatch.setattr("pydbt.device.target_names.root_numbers", lambda: {number})
    done = write_rules([one], root)
    assert not done.rules and str(disk) in done.problems[0] and not (root / RULES_FILE).exists()


def test_a_source_that_has_no_record_is_silent_where_it_has_no_rule(root: Path, disk: Device, tmp_path: Path) -> None:
    source = Replica("data", Path(str(disk)), tmp_path / "none", by_file=False)
    assert write_rules([source], root) == Protection()


def test_image_files_need_no_rule(root: Path, tmp_path: Path) -> None:
    to_be_made = Replica("b", tmp_path / "to-be-made", tmp_path / "b.state")
    done = write_rules([replica(image(tmp_path / "a", MIB), tmp_path), to_be_made], root)
    assert done == Protection()


def test_a_filter_of_the_administrator_stays_and_is_judged(root: Path, disk: Device, tmp_path: Path) -> None:
    (root / LVM_MAIN_FILE).write_text('devices {\n\tglobal_filter = [ "a|.*|" ]\n}\n')
    done = write_rules([replica(disk, tmp_path)], root)
    assert (
        "global_filter" in done.problems[0]
        and LINK in done.problems[0]
        and (root / LVM_FILE).read_text() == "local {\n}\n"
    )
    (root / LVM_MAIN_FILE).write_text(f'devices {{\n\tglobal_filter = [ "r|^{disk}$|" ]\n}}\n')
    assert write_rules([replica(disk, tmp_path)], root).problems == []


def test_a_machine_without_udev_or_lvm_gets_no_file(disk: Device, tmp_path: Path) -> None:
    done = write_rules([replica(disk, tmp_path)], tmp_path / "empty")
    assert done.rules and not done.changed and not (tmp_path / "empty").exists()


def test_a_file_that_cannot_be_written_is_named(root: Path, disk: Device, tmp_path: Path) -> None:
    (root / "etc/udev/rules.d").rmdir()
    (root / "etc/udev/rules.d").write_text("")
    with pytest.raises(StateError, match="62-pydbt-targets"):
        write_rules([replica(disk, tmp_path)], root)


def test_nothing_is_asked_of_udev_or_the_initramfs_where_nothing_changed(disk: Device) -> None:
    done = Protection()
    take_effect(done)
    assert renew_initramfs(done) == "" and done == Protection()
    release_target(Path(str(disk)))
    release_target(Path("/dev/pydbt-test-none"))
