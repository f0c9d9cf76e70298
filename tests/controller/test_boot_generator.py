"""The generator orders each volume that is armed at boot, whatever is wrong with others, and never fails the boot."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pydbt.controller.boot_chain import keep_names, why_unarmed
from pydbt.controller.boot_files import GENERATED, at_their_goals, mounts_at_boot, names_file, units_behind
from pydbt.controller.boot_generator import STATES_FOLDER, TARGET_RULES, VOLUME_FILES, main
from pydbt.core.configured.boot_order import ArmedVolume, names_text
from pydbt.core.configured.fstab import mounts_in_fstab
from pydbt.core.configured.target_rules import Match, TargetRule, udev_rules
from pydbt.device import names
from pydbt.device.names import device_names
from pydbt.device.sysfs import BlockDevice
from tests.lab.programs import ROOT

UUID = "/dev/disk/by-uuid/1-2"
LINE = "UUID=1-2 /srv/data ext4 defaults 0 2\n"


class Machine:
    """The files of a machine below a root, and the generator on them."""

    def __init__(self, root: Path) -> None:
        self.root, self.normal, self.log = root, root / GENERATED, root / "kmsg"
        for folder in (VOLUME_FILES, GENERATED, "run/systemd/system", "etc/systemd/system/local-fs.target.wants"):
            (root / folder).mkdir(parents=True)
        self.log.touch()
        self.fstab(LINE)

    def fstab(self, text: str | bytes) -> None:
        (self.root / "etc/fstab").write_bytes(text if isinstance(text, bytes) else text.encode())

    def volume(self, name: str, text: str = '[run]\nsource = "/dev/vda3"\n', *known: str, enabled: bool = True) -> Path:
        file = self.root / VOLUME_FILES / f"{name}.toml"
        file.write_text(text)
        if known:
            names_file(file).write_text(names_text("/dev/vda3", known))
        if enabled:
            (self.root / f"etc/systemd/system/local-fs.target.wants/pydbt-arm@{name}.service").symlink_to("/nowhere")
        return file

    def generate(self) -> int:
        return main([str(self.normal), str(self.root / "early"), str(self.root / "late")], self.root, str(self.log))

    def order(self, name: str) -> str:
        path = self.normal / f"pydbt-arm@{name}.service.d/pydbt-order.conf"
        return path.read_text() if path.exists() else ""

    def ordered(self) -> list[str]:
        """The units that wait for something of a volume but its state."""
        return sorted({path.parent.name for path in self.normal.glob("*/*") if path.name != "pydbt-state.conf"})

    def said(self) -> str:
        return self.log.read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_an_armed_volume_is_ordered_and_the_kernel_s_log_names_its_mount(machine: Machine) -> None:
    machine.volume("data", '[run]\nsource = "/dev/vda3"\nstate = "/state"\n', UUID, "/dev/vda3")
    assert machine.generate() == 0
    assert "Before=srv-data.mount\n" in machine.order("data") and "RequiresMountsFor=/state\n" in machine.order("data")
    assert machine.said() == "<6>pydbt-generator: data is armed before the mount of /srv/data\n"
    assert machine.ordered() == ["pydbt-arm@data.service.d"]


def test_without_an_armed_volume_no_order_is_written_or_said(machine: Machine) -> None:
    machine.volume("data", enabled=False)
    assert machine.generate() == 0 and not machine.said() and not machine.ordered()


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ('[run]\nsource = "/dev/vda3"\nstate = "/srv/state/data"\n', "/srv/state/data"),
        ('[run]\nsource = "/dev/vda3"\n', "/var/lib/pydbt/data"),
        ('[secondary]\ntarget = "/dev/vdb"\nstate = "/srv/state/data"\n', "/srv/state/data"),
        ('[secondary]\ntarget = "/dev/vdb"\n', "/var/lib/pydbt/data"),
    ],
)
def test_gate_and_hold_of_each_configured_file_wait_for_the_file_system_of_its_state(
    machine: Machine, text: str, state: str
) -> None:
    """Without the state the gate knows nobody whom to ask, and the hold does not know what is a target."""
    machine.volume("data", text, enabled=False)
    assert machine.generate() == 0
    for unit in ("pydbt-gate@data.service", "pydbt-hold@data.service"):
        assert f"[Unit]\nRequiresMountsFor={state}\n" in (machine.normal / f"{unit}.d/pydbt-state.conf").read_text()


def test_a_mount_that_the_gate_itself_needs_does_not_wait_for_it_and_that_is_told(machine: Machine) -> None:
    """It would be a circle, from which systemd drops any job of the boot."""
    machine.fstab("UUID=1-2 /srv ext4 defaults,_netdev 0 2\n/dev/vda3 /mnt ext4 defaults,_netdev 0 2\n")
    machine.volume("data", '[run]\nsource = "/dev/vda3"\nstate = "/srv/state"\n', UUID, "/dev/vda3", enabled=False)
    assert machine.generate() == 0
    assert machine.ordered() == ["mnt.mount.d", "systemd-fsck@dev-vda3.service.d"]
    assert "<4>pydbt-generator: /srv in /etc/fstab does not wait for the gate of data" in machine.said()


def test_no_link_is_followed_but_that_of_the_volumes_own_mount_point() -> None:
    """A server of NFS that is away, or an automount, would keep the look waiting, and with it systemd."""
    lines = (
        "nas:/x /net/dead/x nfs defaults 0 0\nUUID=1-2 /link ext4 defaults 0 2\n/dev/vdz /auto/x ext4 defaults 0 2\n"
    )
    looked: list[str] = []

    def follow(point: str) -> str:
        looked.append(point)
        return "/goal"

    found = at_their_goals(mounts_in_fstab(lines), ArmedVolume("data", "/dev/vda3", frozenset({UUID})), follow=follow)
    assert looked == ["/link"] and [mount.unit for mount in found] == ["net-dead-x.mount", "goal.mount", "auto-x.mount"]


def test_links_of_a_root_that_is_looked_at_from_outside_are_not_followed(tmp_path: Path) -> None:
    mounts = mounts_in_fstab("UUID=1-2 /link ext4 defaults 0 2\n")
    volume = ArmedVolume("data", "/dev/vda3", frozenset({UUID}))
    assert at_their_goals(mounts, volume, tmp_path, lambda _: "/goal") == mounts


@pytest.mark.parametrize(
    "text",
    [
        '[secondary]\ntarget = "/dev/vda3"\n',
        '[secondary]\ntarget = "/dev/vda3"\n[run]\nsecondary = "10.0.0.1:7790"\n',
        '[run]\nsecondary = "10.0.0.1:7790"\n[secondary]\ntarget = "/dev/vda3"\n',
        '[run]\nsource = "/dev/vda3"\n[secondary]\nlisten = "10.0.0.1:7790"\n',
    ],
)
def test_a_side_is_ordered_whatever_its_role_is_because_the_state_cannot_be_read_yet(
    machine: Machine, text: str
) -> None:
    """A replica that was promoted is armed before its mount, and its mount asks the gate."""
    machine.fstab("UUID=1-2 /srv/data ext4 defaults,_netdev 0 2\n")
    machine.volume("data", text, UUID, "/dev/vda3")
    assert machine.generate() == 0
    assert "Before=" in machine.order("data") and "After=dev-vda3.device\n" in machine.order("data")
    assert "srv-data.mount.d" in machine.ordered()


def test_no_gate_of_the_primary_s_table_counts_beside_the_other_one(machine: Machine) -> None:
    machine.fstab("UUID=1-2 /srv/data ext4 defaults,_netdev 0 2\n")
    text = '[secondary]\ntarget = "/dev/vda3"\n[run]\nsecondary = "10.0.0.1:7790"\nno-gate = true\n'
    machine.volume("data", text, UUID, "/dev/vda3")
    assert machine.generate() == 0 and machine.ordered() == ["pydbt-arm@data.service.d"]


def test_nobody_waits_for_a_device_that_the_rules_hide_because_it_is_a_replica_now(machine: Machine) -> None:
    """systemd would wait for a minute and a half, and with it the secondary of this side."""
    machine.volume("data", '[run]\nsource = "/dev/vda3"\n', UUID, "/dev/vda3")
    machine.volume("other", '[run]\nsource = "/dev/vdc"\n')
    rules = machine.root / TARGET_RULES
    rules.parent.mkdir(parents=True)
    rules.write_text(udev_rules([TargetRule("data", "/dev/vda3", Match("serial", "one"), ())]))
    assert machine.generate() == 0
    assert ".device" not in machine.order("data") and "Before=" in machine.order("data")
    wanted = machine.normal / "pydbt@data.service.d/pydbt-hold.conf"
    assert "\nWants=pydbt-hold@data.service\n" in wanted.read_text()
    assert not (machine.normal / "pydbt@other.service.d").exists(), "a volume has nothing to hold"
    assert "After=dev-vdc.device\n" in machine.order("other")
    rules.unlink()
    os.mkfifo(rules)
    assert machine.generate() == 0 and "After=dev-vda3.device\n" in machine.order("data")


def test_a_masked_unit_is_not_ordered(machine: Machine) -> None:
    machine.volume("data")
    (machine.root / "etc/systemd/system/pydbt-arm@data.service").symlink_to(os.devnull)
    assert machine.generate() == 0 and not machine.order("data")


BROKEN = {
    "toml": "[run]\nsource = /dev/vda3\n",
    "type": "[run]\nsource = 3\n",
    "state": '[run]\nsource = "/dev/vda3"\nstate = 3\n',
    "empty-run": "[run]\n",
    "no-table": "run = 3\n",
}


def test_one_volume_that_cannot_be_read_changes_no_other(machine: Machine) -> None:
    for name, text in BROKEN.items():
        machine.volume(name, text)
    machine.volume("latin", enabled=True).write_bytes(b'[run]\nsource = "/dev/\xff"\n')
    machine.volume("long").write_text("#" * (1 << 20) + '\n[run]\nsource = "/dev/vda3"\n')
    fifo = machine.volume("pipe")
    fifo.unlink()
    os.mkfifo(fifo)
    (machine.root / VOLUME_FILES / "folder.toml").mkdir()
    machine.volume("replica", '[secondary]\ntarget = "/dev/vdb"\n')
    (machine.root / VOLUME_FILES / "Bad Name.toml").write_text('[run]\nsource = "/dev/vda3"\n')
    machine.volume("good", '[run]\nsource = "/dev/vda3"\n', UUID)
    assert machine.generate() == 0
    assert "Before=srv-data.mount" in machine.order("good")
    assert machine.ordered() == ["pydbt-arm@good.service.d", "pydbt-arm@replica.service.d"]
    for name in ("toml", "type", "state", "empty-run", "long", "latin", "pipe"):
        assert f"{name}.toml: its volume is not ordered" in machine.said(), name


def test_a_names_file_that_cannot_be_read_is_that_volume_s_alone(machine: Machine) -> None:
    os.mkfifo(names_file(machine.volume("data")))
    machine.volume("other", '[run]\nsource = "/dev/vda3"\n', UUID)
    assert machine.generate() == 0
    assert not machine.order("data") and "Before=srv-data.mount" in machine.order("other")


def test_lines_of_fstab_that_are_none_change_no_other(machine: Machine) -> None:
    machine.volume("data", '[run]\nsource = "/dev/vda3"\n', UUID)
    machine.fstab(
        b"\xff\xfe\0\n/dev/x\n\t#\nLABEL=\xff /mnt/\xff ext4\r\n" + LINE.encode() + b"\x00 a b\n\\040 \\ \\\n"
    )
    assert machine.generate() == 0 and "Before=srv-data.mount" in machine.order("data")


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_without_a_readable_fstab_the_units_of_mounts_still_count(machine: Machine, kind: str) -> None:
    machine.volume("data", '[run]\nsource = "/dev/vda3"\n', UUID)
    fstab = machine.root / "etc/fstab"
    fstab.unlink()
    if kind != "missing":
        fstab.mkdir() if kind == "folder" else os.mkfifo(fstab)
    unit = machine.root / "etc/systemd/system/srv-x.mount"
    unit.write_text("[Mount]\nWhat=UUID=1-2\nWhere=/srv/x\n")
    (unit.parent / "srv-y.mount").symlink_to(os.devnull)
    lower = machine.root / "usr/lib/systemd/system"
    lower.mkdir(parents=True)
    for name in ("x", "y"):
        (lower / f"srv-{name}.mount").write_text(f"[Mount]\nWhat=/dev/vda3\nWhere=/srv/{name}\n")
    os.mkfifo(unit.parent / "srv-z.mount")
    assert machine.generate() == 0
    assert "Before=srv-x.mount" in machine.order("data") and "srv-y" not in machine.order("data")
    assert ("fstab cannot be read" in machine.said()) is (kind != "missing")
    assert [mount.device for mount in mounts_at_boot(machine.root)] == [UUID], "the first of a name counts, or its mask"


def test_a_wrong_call_is_one_sentence_and_writes_nothing(machine: Machine) -> None:
    for words in ([], ["/nonexistent"]):
        assert main(words, machine.root, str(machine.log)) == 2
    assert machine.said().count("expected a folder") == 2


def test_a_folder_that_takes_nothing_is_no_failure_of_the_boot(machine: Machine) -> None:
    machine.volume("data")
    (machine.normal / "pydbt-arm@data.service.d").write_text("a file")
    assert machine.generate() == 0 and "not ordered before its mount" in machine.said()


def test_the_entry_needs_no_package_and_writes_nothing_but_drop_ins(tmp_path: Path) -> None:
    for name in ("normal", "early", "late"):
        (tmp_path / name).mkdir()
    program = ROOT / "packaging/systemd/pydbt-generator"
    words = [program, *(tmp_path / name for name in ("normal", "early", "late"))]
    done = subprocess.run(words, cwd="/", env={}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "") and "Traceback" not in done.stderr
    listed = subprocess.run(
        ["python3", "-ISBc", f"import sys; sys.path.insert(0, {str(ROOT)!r}); import pydbt.controller.boot_generator; "
         "print(*sorted(sys.modules))"], capture_output=True, text=True, timeout=60, check=True,
    ).stdout.split()  # fmt: skip
    slow = {"dataclasses", "inspect", "json", "click", "numpy", "bcc", "logging", "subprocess", "socket", "ctypes"}
    assert not slow & set(listed), "a boot waits for each of them"


def test_the_state_directory_is_where_the_program_looks_for_it() -> None:
    from pydbt.cli import volume_files
    from pydbt.core.configured import target_rules

    assert target_rules.RULES_FILE == TARGET_RULES
    assert str(volume_files.STATE_ROOT) == STATES_FOLDER and str(volume_files.VOLUMES) == f"/{VOLUME_FILES}"


DEVICE = BlockDevice("/dev/vda3", "vda3", 254, 3, 254, 0, 3, 2048, 4096, 512, False, False)


def why(machine: Machine, file: Path | None) -> str:
    return why_unarmed(file, Path("/dev/vda3"), DEVICE, machine.root / "state", machine.root)


@pytest.fixture
def known_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pydbt.controller.boot_chain.device_names", lambda _: frozenset({UUID, "/dev/vda3"}))


@pytest.mark.usefixtures("known_now")
def test_each_reason_why_a_mount_came_before_the_arming_is_named(machine: Machine) -> None:
    file = machine.volume("data", enabled=False)
    assert why(machine, None) == "", "not configured"
    assert why(machine, file) == "pydbt-arm@data.service is not enabled"
    machine.volume("data")
    assert "no generator has ordered pydbt-arm@data.service" in why(machine, file)
    machine.generate()
    assert why(machine, file) == (
        "/srv/data in /etc/fstab names UUID=1-2, by which the volume was not known when the machine was booted"
    )
    names_file(file).write_text(names_text("/dev/vda3", [UUID]))
    assert "was not known" in why(machine, file), "what is learnt later does not change the past"
    machine.generate()
    assert why(machine, file) == ""
    (machine.root / "etc/systemd/system/pydbt-arm@.service").symlink_to(os.devnull)
    assert why(machine, file) == "pydbt-arm@data.service is masked"
    (machine.root / "run/systemd/system").rmdir()
    assert why(machine, file) == "", "another init"


@pytest.mark.usefixtures("known_now")
def test_an_order_that_a_person_wrote_counts(machine: Machine) -> None:
    file = machine.volume("data")
    machine.generate()
    own = machine.root / "etc/systemd/system/pydbt-arm@data.service.d"
    own.mkdir()
    (own / "override.conf").write_text("[Unit]\nBefore=srv-data.mount\n")
    assert why(machine, file) == "" and "srv-data.mount" in (units_behind("pydbt-arm@data.service", machine.root) or ())


def test_names_are_those_of_udev_s_record_and_of_device_mapper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BlockDevice, "mapper_name", lambda _: "vg-data")
    (tmp_path / "b254:3").write_text(f"S:{UUID[5:]}\nI:123\nE:S:no=1\nS:vg/data\n")
    assert device_names(DEVICE, tmp_path) == {"/dev/vda3", "/dev/mapper/vg-data", UUID, "/dev/vg/data"}
    (tmp_path / "dev/disk/by-label").mkdir(parents=True)
    (tmp_path / "dev/disk/by-label/x").symlink_to("/nowhere")
    assert device_names(DEVICE, tmp_path / "none", tmp_path / "dev") == {"/dev/vda3", "/dev/mapper/vg-data"}


def test_names_are_written_once_and_by_root_alone(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    file = machine.volume("data")
    monkeypatch.setattr(names, "UDEV_DATABASE", machine.root)
    with monkeypatch.context() as other:
        other.setattr(os, "geteuid", lambda: 1000)
        keep_names(file, Path("/dev/vda3"), DEVICE)
    keep_names(None, Path("/dev/vda3"), DEVICE)
    assert not names_file(file).exists()
    keep_names(file, Path("/dev/vda3"), DEVICE)
    before = names_file(file).stat()
    assert "name /dev/vda3\n" in names_file(file).read_text() and before.st_mode & 0o777 == 0o600
    keep_names(file, Path("/dev/vda3"), DEVICE)
    assert names_file(file).stat().st_ino == before.st_ino, "not written again"
    keep_names(file, Path("/dev/nowhere"))
    keep_names(machine.root / "nowhere/x.toml", Path("/dev/vda3"), DEVICE)
    assert names_file(file).stat().st_ino == before.st_ino, "what cannot be told changes nothing"


def test_a_line_that_waits_for_the_network_gets_the_gate_of_its_volume_armed_or_not(machine: Machine) -> None:
    machine.fstab("UUID=1-2 /srv/data ext4 defaults,_netdev 0 2\n/dev/vda3 /mnt ext4 defaults 0 2\n")
    machine.volume("data", '[run]\nsource = "/dev/vda3"\n', UUID, enabled=False)
    assert machine.generate() == 0
    gate = "Requires=pydbt-gate@data.service\nAfter=pydbt-gate@data.service\n"
    units = machine.ordered()
    assert units == ["srv-data.mount.d", "systemd-fsck@dev-disk-by\\x2duuid-1\\x2d2.service.d"]
    for unit in units:
        assert gate in (machine.normal / unit / "pydbt-gate.conf").read_text()
    assert "srv-data.mount waits for pydbt-gate@data.service" in machine.said() and not machine.order("data")


def test_a_volume_without_a_gate_has_none(machine: Machine) -> None:
    machine.fstab("UUID=1-2 /srv/data ext4 defaults,_netdev 0 2\n")
    machine.volume("data", '[run]\nsource = "/dev/vda3"\nno-gate = true\n', UUID)
    assert machine.generate() == 0
    assert machine.ordered() == ["pydbt-arm@data.service.d"]


def test_the_closing_record_is_made_before_device_mapper_ends_unless_that_waits_for_disks_of_the_network(
    machine: Machine,
) -> None:
    machine.volume("data", '[run]\nsource = "/dev/vda3"\n', UUID)
    assert machine.generate() == 0 and "After=blk-availability.service\n" in machine.order("data")
    (machine.root / "etc/systemd/system/local-fs.target.wants/iscsid.service").symlink_to("/nowhere")
    assert machine.generate() == 0 and "blk-availability" not in machine.order("data")
