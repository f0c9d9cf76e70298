"""The files of volumes: every fault of every file is told at once, with its place, and nothing is changed by the check."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from pydbt.cli import gated_mounts, serving
from pydbt.cli.gated_mounts import gates_of_nobody, ungated_mounts
from pydbt.cli.group import cli, execute
from pydbt.cli.supervising import configured
from pydbt.cli.volume_files import read_volume
from pydbt.controller.state_dir import ALLOW_MEMORY
from pydbt.core.configured.fstab import mount_of_unit
from pydbt.core.errors import UsageError
from pydbt.posix import libc
from tests.lab.disks import image, loop_device, partition_of
from tests.lab.programs import Outcome

RIGHT = '[run]\nsource = "/dev/vda3"\nsecondary = "10.0.0.2:7790"\ninsecure = true\n'
REPLICA = '[secondary]\ntarget = "/x/vdb.img"\nlisten = "10.0.0.2:7790"\ninsecure = true\n'


class Machine:
    """A folder for the files of volumes, in the place of /etc/pydbt, and the program on it."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.volumes, self.general, self._capsys = root / "volumes", root / "controller.toml", capsys
        self.volumes.mkdir()

    def write(self, name: str, text: str) -> Path:
        path = self.volumes / f"{name}.toml"
        path.write_text(text)
        return path

    def run(self, *arguments: object) -> Outcome:
        general = ["--config", str(self.general)] if self.general.exists() else []
        code = execute([*general, *(str(argument) for argument in arguments)])
        return Outcome(code, *self._capsys.readouterr())


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Machine:
    made = Machine(tmp_path, capsys)
    monkeypatch.setenv("PYDBT_VOLUMES", str(made.volumes))
    monkeypatch.chdir(made.volumes.parent)
    return made


def test_files_without_a_fault_are_counted_and_named(machine: Machine) -> None:
    machine.write("data", RIGHT)
    machine.write("rep", REPLICA)
    (machine.volumes / "notes.txt").write_text("no volume")
    (machine.volumes / ".hidden.toml").write_text("no volume")
    found = machine.run("configcheck")
    lines = found.output.splitlines()
    assert (found.code, lines[0], found.errors) == (0, "no errors: 1 volume (data) and 1 replica (rep)", "")
    assert len(lines) == 2 and "rep.toml is its replica, on this same machine" in lines[1]
    assert machine.run("configcheck", "rep").output == "no errors: 1 replica (rep)\n"
    assert sorted(path.name for path in machine.volumes.iterdir() if path.suffix != ".names") == [
        ".hidden.toml",
        "data.toml",
        "notes.txt",
        "rep.toml",
    ]


def test_the_check_keeps_the_names_of_the_devices_of_right_volumes(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[tuple[object, ...]] = []
    monkeypatch.setattr("pydbt.cli.commands.configcheck.keep_names", lambda *known: kept.append(known))
    data = machine.write("data", RIGHT)
    machine.write("rep", REPLICA)
    machine.write("wrong", RIGHT.replace("vda3", "vda4").replace(".2:", ".9:").replace("insecure", "unsure"))
    elsewhere = machine.volumes.parent / "elsewhere.toml"
    elsewhere.write_text(RIGHT.replace("vda3", "vda5").replace(".2:", ".3:"))
    assert machine.run("configcheck", "data").code == 0 and machine.run("configcheck").code == 2
    machine.run("configcheck", elsewhere)
    assert kept == [(data, Path("/dev/vda3"))] * 3


def test_a_run_keeps_the_names_of_a_configured_volume_s_device_and_its_check_keeps_none(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[tuple[object, ...]] = []

    def keep(*known: object) -> None:
        kept.append(known)
        raise UsageError("as far as this test goes")

    monkeypatch.setattr(serving, "check_primary", lambda *_: "the device")
    monkeypatch.setattr(serving, "keep_names", keep)
    data = machine.write("data", RIGHT)
    assert machine.run("run", "data", "--check").code == 0 and not kept
    machine.run("run", "data").refused(2, "as far as this test goes")
    words = ("--secondary", "10.0.0.2:7790", "--insecure", "--state", machine.volumes.parent / "state")
    machine.run("run", "/dev/vda3", *words).refused(2, "as far as this test goes")
    with click.Context(cli):
        (child,) = configured("run", cli, machine.general).values()
    assert child.serve is not None and child.serve() == (2, "as far as this test goes")
    of_file = (data, Path("/dev/vda3"), "the device")
    assert kept == [of_file, (None, *of_file[1:]), of_file]


def test_without_any_file_it_is_said_where_one_belongs(machine: Machine) -> None:
    found = machine.run("configcheck")
    assert found.code == 0 and "write /etc/pydbt/volumes/NAME.toml" in found.output


def test_every_fault_of_every_file_is_one_line_with_its_place(machine: Machine) -> None:
    machine.write(
        "one",
        '# first\n[run]\nsource = /dev/vdb\nsorce = 1\nsecondary = ["10.0.0.2:7790", "nonsense"]\ninsecure = 1\n',
    )
    machine.write(
        "two", '[run]\nsource = "/dev/q"\nsecondary = "10.0.0.3:1"\nblock-size = 5000\nack-timeout = 0\nstate = "rel"\n'
    )
    machine.write("three", '[secondary]\nlisten = "10.0.0.9:7790"\ncheck = true\nreplay-only = true\n')
    machine.write("Bad", '[secondry]\ntarget = "/x"\n')
    machine.write("empty", "")
    machine.write("both", f"{RIGHT}{REPLICA}".replace("vda3", "vda9").replace("7790", "7999"))
    machine.general.write_text('[wait]\ntimout = 5\n[runs]\nx = 1\n[pause]\nstate = "/x"\n')
    found = machine.run("configcheck")
    lines = found.output.splitlines()
    places = {line.split(": ")[0].removeprefix(f"{machine.volumes}/") + ": " + line.split(": ")[1] for line in lines}
    assert places == {
        "one.toml line 3: source = /dev/vdb",
        "one.toml line 4: sorce = 1",
        'one.toml line 5: secondary = ["10.0.0.2:7790", "nonsense"]',
        "one.toml line 6: insecure = 1",
        'two.toml line 6: state = "rel"',
        "three.toml line 1: target",
        "three.toml line 3: check = true",
        "three.toml line 4: replay-only = true",
        "Bad.toml: expected a name of lower-case letters, digits, '.', '_' and '-' that begins with a letter or digit, as "
        "in data.toml",
        "Bad.toml line 1: [secondry]",
        "empty.toml: expected a table [run] of a volume or [secondary] of a replica, and there is none",
        "both.toml line 5: [secondary]",
        f"{machine.general} line 2: timout = 5",
        f"{machine.general} line 3: [runs]",
    }
    by_words = {line.split(": ", 2)[1]: line for line in lines}
    assert "did you mean 'source'" in by_words["sorce = 1"] and "did you mean 'timeout'" in by_words["timout = 5"]
    assert "did you mean 'secondary'" in by_words["[secondry]"] and "did you mean 'run'" in by_words["[runs]"]
    assert found.code == 2 and found.errors == "controller: 14 errors in 7 of 7 files\n"


def test_a_path_that_is_no_text_or_has_a_null_byte_is_one_error_for_every_command(machine: Machine) -> None:
    machine.write("number", '[run]\nsource = 5\nsecondary = "10.0.0.2:7790"\ninsecure = true\n')
    machine.write(
        "null", '[run]\nsource = "/dev/a"\nsecondary = "10.0.0.3:7790"\ninsecure = true\nstate = "/\\u0000"\n'
    )
    found = machine.run("configcheck")
    assert found.code == 2 and "Traceback" not in found.errors, found
    assert "number.toml line 2: source = 5: expected an absolute path" in found.output
    assert "null.toml line 5: state = " in found.output and "has a null byte" in found.output
    machine.run("status", "null").refused(2, "null.toml line 5", "null byte")


def test_values_that_do_not_go_together_are_told_once_every_key_is_right(machine: Machine) -> None:
    machine.write(
        "two",
        '[run]\nsource = "/dev/q"\nsecondary = "10.0.0.3:1"\nblock-size = 5000\nack-timeout = 0\npeer = "x"\n'
        "epoch-interval = 0\n",
    )
    keys = [line.split(": ")[1].split(" ")[0] for line in machine.run("configcheck", "two").output.splitlines()]
    assert keys == ["block-size", "ack-timeout", "peer", "epoch-interval"]
    machine.write("two", RIGHT.replace("insecure = true", 'identity = "/no/such"'))
    assert '4: identity = "/no/such": ' in machine.run("configcheck").output
    machine.write("two", RIGHT.replace("insecure = true", ""))
    assert "plain TCP authenticates nobody" in machine.run("configcheck").output


def test_a_setting_that_every_start_refuses_is_reported_for_a_file_too(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libc, "file_system_magic", lambda path: 0x01021994)
    monkeypatch.delenv(ALLOW_MEMORY, raising=False)
    machine.write("data", f'{RIGHT}state = "{tmp_path}/state"\n')
    machine.write("rep", REPLICA).chmod(0o666)
    found = machine.run("configcheck")
    memory, writable = found.output.splitlines()
    assert found.code == 2 and "data.toml line 5: state = " in memory and "lies in memory (tmpfs)" in memory, found
    assert "rep.toml: " in writable and "not safe from other users" in writable, found
    machine.run("run", "rep").refused(2, "not safe from other users")


def test_two_files_that_name_the_same_thing_are_both_refused(machine: Machine) -> None:
    disk = image(machine.volumes.parent / "disk.img", 1 << 20)
    (machine.volumes.parent / "link").symlink_to(disk)
    machine.write("a", REPLICA.replace("/x/vdb.img", str(disk)))
    machine.write("b", REPLICA.replace("/x/vdb.img", f"{disk.parent}/link").replace("10.0.0.2", "0.0.0.0"))
    machine.write("c", RIGHT + 'state = "/var/lib/pydbt/b"\n')
    machine.general.write_text('[run]\nsource = "/dev/vda3"\n')
    found = machine.run("configcheck")
    told = [tuple(line.removeprefix(f"{machine.volumes}/").split(": ")[:2]) for line in found.output.splitlines()]
    assert [(place, words.split(" ")[0]) for place, words in told] == [
        (f"{machine.general} line 2", "source"),
        ("a.toml line 2", "target"),
        ("a.toml line 3", "listen"),
        ("b.toml line 1", "state"),
        ("b.toml line 2", "target"),
        ("b.toml line 3", "listen"),
        ("c.toml line 2", "source"),
        ("c.toml line 5", "state"),
    ]
    assert "c.toml line 5" in next(line for line in found.output.splitlines() if "b.toml line 1" in line)
    alone = machine.run("configcheck", "c")
    assert alone.code == 2 and len(alone.output.splitlines()) == 2, "the others are looked at too"


def test_a_file_beside_the_folder_is_checked_by_its_path(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "next.toml"
    path.write_text(RIGHT)
    assert machine.run("configcheck", path).code == 0
    machine.write("data", RIGHT)
    assert "also source of" in machine.run("configcheck", path).output
    assert machine.run("configcheck", machine.volumes / "data.toml").code == 0
    machine.run("configcheck", "dta").refused(2, "did you mean 'data'")


def test_devices_are_looked_at_only_when_that_is_asked_for(machine: Machine) -> None:
    machine.write("data", RIGHT.replace("/dev/vda3", "/dev/no-such-disk"))
    assert machine.run("configcheck").code == 0
    found = machine.run("configcheck", "--devices")
    assert found.code == 2 and 'line 2: source = "/dev/no-such-disk": ' in found.output
    assert "does not exist" in found.output


# --- names in commands ------------------------------------------------------------------------------------


def test_a_name_stands_for_the_device_and_the_state_directory(machine: Machine, tmp_path: Path) -> None:
    machine.write("data", RIGHT)
    machine.run("status", "data").refused(9, "data has not run yet", "/var/lib/pydbt/data")
    machine.write("data", f'{RIGHT}state = "{tmp_path}/none"\n')
    machine.run("wait", "data").refused(9, f"{tmp_path}/none")
    machine.run("run", "data").refused(2, "/dev/vda3 does not exist")
    machine.run("secondary", "data").refused(2, "data is a volume", "'controller run data'")
    machine.run("promote", "data").refused(2, f"{tmp_path}/none is not a state directory")


def test_a_path_beats_a_name_and_an_ambiguous_word_is_refused(machine: Machine, tmp_path: Path) -> None:
    machine.write("data", RIGHT)
    machine.run("status", "./data").refused(2, "data does not exist")
    (tmp_path / "data").write_text("")
    machine.run("status", "data").refused(2, "ambiguous", "./data")
    machine.run("status", "./data").refused(2, "regular file")
    machine.run("status", "dta").refused(2, "neither a file nor a volume", "did you mean 'data'")


@pytest.mark.parametrize("command", ["status", "gate", "hold", "arm", "run"])
def test_a_folder_with_the_volumes_name_makes_no_word_ambiguous(machine: Machine, tmp_path: Path, command: str) -> None:
    """In ``/``, where a service begins, the mount point of the volume ``data`` is such a folder: ``/data``."""
    machine.write("data", f'{RIGHT}state = "{tmp_path}/state"\non-unreachable = "mount"\n')
    (tmp_path / "data").mkdir()
    found = machine.run(command, "data")
    assert "ambiguous" not in found.output and "data is not a block device" not in found.output
    if command == "run":
        found.refused(2, "/dev/vda3 does not exist")


def test_the_gate_never_looks_for_a_file_with_the_volumes_name(machine: Machine, tmp_path: Path) -> None:
    machine.write("data", f'{RIGHT}state = "{tmp_path}/state"\non-unreachable = "mount"\n')
    (tmp_path / "data").write_text("")
    assert machine.run("gate", "data").code == 0


def test_a_name_takes_all_options_from_its_file_and_the_command_line_overrides_them(machine: Machine) -> None:
    machine.general.write_text(
        '[run]\nsource = "/dev/other"\nstate = "/other"\nsecondary = "10.9.9.9:1"\nblock-size = 7\n'
    )
    machine.write("data", RIGHT)
    machine.run("run", "data").refused(2, "/dev/vda3 does not exist")
    machine.run("run", "data", "--block-size", "5000").refused(2, "--block-size is 5000 bytes")
    machine.write("data", RIGHT + "sorce = 1\nsauce = 2\n")
    machine.run("run", "data").refused(2, "data.toml line 5", "and 1 more", "configcheck data")


def test_a_line_of_fstab_that_mounts_a_volume_before_its_gate_is_one_line_with_its_place(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whatever name of the device; a volume without a gate, a replica and any other device may be mounted at any time."""
    disk = image(machine.volumes.parent / "disk", 1 << 20)
    link = machine.volumes.parent / "by-name"
    link.symlink_to(disk)
    other = image(machine.volumes.parent / "other", 1 << 20)
    fstab = machine.volumes.parent / "fstab"
    monkeypatch.setenv("SYSTEMD_FSTAB", str(fstab))
    machine.write("data", RIGHT.replace("/dev/vda3", str(disk)))
    machine.write("rep", REPLICA.replace("/x/vdb.img", str(other)))
    assert machine.run("configcheck").code == 0, "there is no fstab"
    fstab.write_text(f"# boot\n{other} /mnt ext4 defaults 0 2\n{link} /srv\\040data ext4 defaults 0 2\n")
    found = machine.run("configcheck")
    assert found.code == 2 and found.output.startswith(f"{fstab} line 3: /srv data (volume data): expected _netdev")
    assert found.output.count("\n") == 1
    assert machine.run("configcheck", "data").code == 2 and machine.run("configcheck", "rep").code == 0
    fstab.write_text(
        f"{link} /srv ext4 defaults,_netdev 0 2\n{link} /again ext4 noauto 0 0\n{other} none swap sw 0 0\n"
    )
    assert machine.run("configcheck").code == 0
    fstab.write_text(
        f"{link} /srv ext4 noauto,x-systemd.automount 0 0\n{link} none swap sw 0 0\n{link} none swap noauto\n"
    )
    first, second = machine.run("configcheck").output.splitlines()
    assert first.startswith(f"{fstab} line 1: /srv (volume data): expected _netdev"), "whoever looks there mounts it"
    assert second.startswith(f"{fstab} line 2: swap (volume data): expected no swap")
    fstab.write_text(f"{disk} /srv ext4 defaults 0 2\n")
    machine.write("data", f"{RIGHT.replace('/dev/vda3', str(disk))}no-gate = true\n")
    assert machine.run("configcheck").code == 0


def test_a_mount_of_a_device_on_a_gated_volume_needs_a_drop_in_of_its_own(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The generator makes none for it, whatever its options are."""
    fstab, drop_ins = tmp_path / "fstab", tmp_path / "units"
    monkeypatch.setenv("SYSTEMD_FSTAB", str(fstab))
    monkeypatch.setattr(gated_mounts, "mounts_of_units", lambda: [])
    with loop_device(tmp_path, 8 << 20) as disk, partition_of(disk, 1, 2048, 4096) as part:
        fstab.write_text(f"{part} /srv ext4 defaults,_netdev 0 2\n")
        volume = read_volume(machine.write("data", RIGHT.replace("/dev/vda3", str(disk.path))))
        (problem,) = ungated_mounts([volume], drop_ins)
        assert (problem.line, problem.key) == (1, "/srv (volume data)") and "pydbt-gate@data.service" in problem.words
        assert f"it lies on {disk.path}" in problem.words
        (drop_ins / "srv.mount.d").mkdir(parents=True)
        lines = drop_ins / "srv.mount.d/gate.conf"
        lines.write_text("[Unit]\n# Requires=pydbt-gate@data.service\nAfter=pydbt-gate@data.service\n")
        assert list(ungated_mounts([volume], drop_ins)) == [problem], (
            "it is behind the gate, and does not need it to open"
        )
        lines.write_text("[Unit]\nRequires=network.target pydbt-gate@data.service\n")
        assert list(ungated_mounts([volume], drop_ins)) == []


def test_a_unit_that_mounts_a_gated_volume_needs_a_drop_in_too(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unit, drop_ins, disk = tmp_path / "srv.mount", tmp_path / "units", image(tmp_path / "disk", 1 << 20)
    monkeypatch.setenv("SYSTEMD_FSTAB", str(tmp_path / "none"))
    unit.write_text(f"[Mount]\nWhat={disk}\nWhere=/srv\n")
    monkeypatch.setattr(
        gated_mounts, "mounts_of_units", lambda: [mount_of_unit(str(unit), unit.name, unit.read_text())]
    )
    volume = read_volume(machine.write("data", RIGHT.replace("/dev/vda3", str(disk))))
    (problem,) = ungated_mounts([volume], drop_ins)
    assert (problem.file, problem.line) == (str(unit), 0) and "for lines of fstab alone" in problem.words
    (drop_ins / "srv.mount.d").mkdir(parents=True)
    (drop_ins / "srv.mount.d/gate.conf").write_text("[Unit]\nBindsTo=pydbt-gate@data.service\n")
    assert list(ungated_mounts([volume], drop_ins)) == []
    machine.write("data", f"{RIGHT.replace('/dev/vda3', str(disk))}no-gate = true\n")
    assert list(ungated_mounts([read_volume(volume.path)], tmp_path / "nothing")) == []


def test_a_mount_that_holds_the_state_its_gate_needs_is_an_error(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generator leaves it without a gate: it would be a circle."""
    fstab = machine.volumes.parent / "fstab"
    monkeypatch.setenv("SYSTEMD_FSTAB", str(fstab))
    machine.write("data", f'{RIGHT}state = "/srv/data/state"\n')
    fstab.write_text("/dev/vda3 /srv/data ext4 defaults,_netdev 0 2\n")
    found = machine.run("configcheck")
    assert found.code == 2 and "line 1: /srv/data (volume data): expected the state directory" in found.output
    machine.write("data", f'{RIGHT}state = "/srv/state"\n')
    assert machine.run("configcheck").code == 0


def test_a_drop_in_for_the_gate_of_a_volume_that_has_another_name_now_is_named(
    machine: Machine, tmp_path: Path
) -> None:
    machine.write("new", RIGHT)
    for name in ("new", "old"):
        folder = tmp_path / f"srv-{name}.mount.d"
        folder.mkdir()
        (folder / "gate.conf").write_text(f"[Unit]\n# pydbt-gate@x.service\nRequires=pydbt-gate@{name}.service\n")
    (problem,) = gates_of_nobody(tmp_path)
    assert str(problem).startswith(f"{tmp_path}/srv-old.mount.d/gate.conf line 3: ")
    assert "pydbt-gate@old.service" in str(problem) and str(machine.volumes) in str(problem)


def test_the_setting_of_the_gate_is_checked_with_the_file(machine: Machine) -> None:
    machine.write("data", f'{RIGHT}on-unreachable = "wait 10m"\n')
    assert machine.run("configcheck").code == 0
    machine.write("data", f'{RIGHT}on-unreachable = "wait for it"\n')
    found = machine.run("configcheck")
    assert found.code == 2 and "'wait TIME, then refuse', 'mount' and 'refuse'" in found.output


def test_the_gate_of_a_volume_that_is_not_configured_or_wrong_stays_shut(machine: Machine) -> None:
    machine.write("data", RIGHT)
    machine.run("gate", "dato").refused(2, "there is no volume dato", "did you mean 'data'?")
    machine.write("data", RIGHT.replace("7790", "port"))
    machine.run("gate", "data").refused(2, "data.toml line 3", "configcheck data")
    state = machine.volumes.parent / "state"
    machine.write("data", f'{RIGHT}state = "{state}"\n')
    machine.run("gate", "data", "--on-unreachable", "refuse").refused(
        5, "data is not mounted", str(state), "no-gate = true"
    )
    assert machine.run("gate", "data", "--on-unreachable", "mount").code == 0 and not state.exists()
