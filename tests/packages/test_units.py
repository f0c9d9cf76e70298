"""The units of systemd: accepted by it, true to the program, and no sandbox hides the machine's mounts from the service."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from pydbt.cli.commands.dashboard import dashboard
from pydbt.cli.volume_files import VOLUMES
from pydbt.controller.units import unit_of
from pydbt.core.configured.gate_units import gate_lines
from pydbt.core.errors import MachineError, UsageError
from pydbt.dashboard.service import KEEPS
from pydbt.kernel.code_cache import FOLDER
from pydbt.posix.privileges import PRIMARY_KEEPS
from pydbt.posix.service_manager import ServiceManager

UNITS = Path(__file__).resolve().parents[2] / "packaging/systemd"
ROLES = ("run", "secondary")
# Each of them makes the service a mount namespace (exec_needs_mount_namespace(), src/core/execute.c), or a list of devices.
HIDING = {
    "BindPaths", "BindReadOnlyPaths", "DeviceAllow", "DevicePolicy", "ExecPaths", "ExtensionImages",
    "InaccessiblePaths", "MountAPIVFS", "NoExecPaths", "PrivateDevices", "PrivateIPC", "PrivateMounts",
    "PrivateTmp", "ProcSubset", "ProtectClock", "ProtectControlGroups", "ProtectHome", "ProtectKernelLogs",
    "ProtectKernelModules", "ProtectKernelTunables", "ProtectProc", "ProtectSystem", "ReadOnlyPaths",
    "ReadWritePaths", "RootDirectory", "RootImage", "TemporaryFileSystem",
}  # fmt: skip
NEEDED_AT_A_START = {"CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_NICE"}


def path_of(role: str) -> Path:
    return UNITS / unit_of(role, "")


def settings(role: str) -> dict[str, list[str]]:
    return settings_of(path_of(role))


def settings_of(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("role", ROLES)
def test_systemd_takes_the_unit_without_a_warning(role: str, tmp_path: Path) -> None:
    unit = tmp_path / path_of(role).name
    unit.write_text(path_of(role).read_text().replace("ExecStart=controller", "ExecStart=true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
    about_it = [line for line in (done.stdout + done.stderr).splitlines() if "pydbt" in line]
    assert done.returncode == 0 and not about_it, done.stderr


@pytest.mark.parametrize("role", ROLES)
def test_the_unit_runs_the_command_of_its_role_by_the_volumes_name(role: str) -> None:
    found = settings(role)
    assert found["ExecStart"] == [f"controller {role} %i"] and found["Type"] == ["notify"]
    assert found["AssertPathExists"] == ["/etc/pydbt/volumes/%i.toml"]
    assert found["CacheDirectory"] == [FOLDER.name] and FOLDER.parent == Path("/var/cache")


@pytest.mark.parametrize("role", ROLES)
def test_the_service_sees_the_machines_own_mounts_and_devices(role: str) -> None:
    assert not HIDING & set(settings(role))


@pytest.mark.parametrize("role", ROLES)
def test_the_unit_has_the_capabilities_that_the_program_keeps_and_no_more(role: str) -> None:
    bounds = {name for line in settings(role)["CapabilityBoundingSet"] for name in line.split()}
    assert bounds == {f"CAP_{capability.name}" for capability in PRIMARY_KEEPS} | NEEDED_AT_A_START


@pytest.mark.parametrize("role", ROLES)
def test_restarts_are_apart_and_end_where_they_change_nothing(role: str) -> None:
    found = settings(role)
    assert found["Restart"] == ["on-failure"] and int(found["RestartSec"][0]) >= 5
    assert found["StartLimitIntervalSec"] == ["0"], "a limit would give a volume up while a disk or the peer is away"
    assert set(found["RestartPreventExitStatus"][0].split()) == {
        str(UsageError.exit_code), str(MachineError.exit_code)
    }  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
def test_the_unit_starts_only_programs_that_the_smallest_system_has(role: str) -> None:
    """/bin/kill is of procps, which a small system does not have."""
    assert settings(role)["ExecReload"] == ['/bin/sh -c "kill -HUP $MAINPID"']


@pytest.mark.parametrize("role", ROLES)
def test_the_watchdog_waits_longer_than_signs_of_life_are_apart(role: str) -> None:
    microseconds = str(int(settings(role)["WatchdogSec"][0]) * 10**6)
    manager = ServiceManager.that_started_us({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": microseconds})
    assert 10 <= manager.sign_interval_s <= 30, "a volume at rest wakes at least each ten seconds"


@pytest.mark.parametrize("unit", sorted(UNITS.glob("*.service")), ids=lambda unit: unit.name)
def test_no_unit_begins_in_a_folder_where_a_file_may_have_the_name_of_the_volume(unit: Path) -> None:
    """Without WorkingDirectory= that is ``/``, where ``/data`` may be: then ``data`` would be ambiguous."""
    assert settings_of(unit)["WorkingDirectory"] == [str(VOLUMES)]


def exposure(unit: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What systemd says of it, by the file alone."""
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", *words, unit]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("unit", sorted(UNITS.glob("*.service")), ids=lambda unit: unit.name)
def test_each_hardening_that_a_unit_leaves_out_is_named_there_with_its_reason(unit: Path) -> None:
    def comments(of: Path) -> str:
        return " ".join(line.lstrip("# ") for line in of.read_text().splitlines() if line.startswith("#"))

    told = comments(unit)
    if "As of pydbt@.service" in told:
        told += comments(UNITS / "pydbt@.service")
    found = json.loads(exposure(unit, "--json=short").stdout)
    left_out = {re.split("[=/]", one["name"])[0] for one in found if one["set"] is False}
    assert len(left_out) > 5, "systemd asks about much that no program can give up"
    # The capabilities that it keeps have their reason before their lines.
    unexplained = {name for name in left_out - {"CapabilityBoundingSet"} if not re.search(rf"\b{name}\b", told)}
    assert not unexplained, unexplained


@pytest.mark.parametrize("unit", sorted(UNITS.glob("*.service")), ids=lambda unit: unit.name)
def test_no_unit_is_more_exposed_than_the_documents_say(unit: Path) -> None:
    text = (UNITS.parents[1] / "docs/operating/installation.md").read_text()
    row = re.search(rf"^ *\| `{re.escape(unit.stem)}` \| ([0-9.]+) \|", text, re.MULTILINE)
    assert row is not None, "the table of exposures has no such unit"
    most = round(10 * float(row[1]))
    assert exposure(unit, f"--threshold={most}").returncode == 0, exposure(unit).stdout.splitlines()[-1]
    assert exposure(unit, f"--threshold={most - 1}").returncode, "it is less exposed: the table has too high a figure"


DASHBOARD = UNITS / "pydbt-dashboard.service"
SOCKET = UNITS / "pydbt-dashboard.socket"


def test_the_dashboards_unit_is_taken_by_systemd_without_a_warning(tmp_path: Path) -> None:
    unit = tmp_path / DASHBOARD.name
    unit.write_text(DASHBOARD.read_text().replace("ExecStart=controller", "ExecStart=true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "pydbt" not in done.stdout + done.stderr, done.stderr


def test_the_dashboards_socket_is_taken_by_systemd_without_a_warning_and_is_where_the_program_listens(
    tmp_path: Path,
) -> None:
    for unit in (DASHBOARD, SOCKET):
        (tmp_path / unit.name).write_text(unit.read_text().replace("ExecStart=controller", "ExecStart=true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / SOCKET.name], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and "pydbt" not in done.stdout + done.stderr, done.stderr
    (default,) = [one.default for one in dashboard.params if one.name == "listen"]
    assert settings_of(SOCKET)["ListenStream"] == [default] and "Accept" not in settings_of(SOCKET)


def test_the_dashboard_s_socket_is_not_given_up_for_a_service_that_does_not_start() -> None:
    assert settings_of(SOCKET)["TriggerLimitIntervalSec"] == ["0"] and settings_of(SOCKET)["FlushPending"] == ["yes"]
    assert settings_of(DASHBOARD)["StartLimitIntervalSec"] == ["0"]


def test_the_dashboard_s_unit_keeps_no_mount_busy_and_has_the_capabilities_that_the_program_keeps() -> None:
    found = settings_of(DASHBOARD)
    assert not HIDING & set(found) and found["NoNewPrivileges"] == ["yes"]
    bounds = {name for line in found["CapabilityBoundingSet"] for name in line.split()}
    assert bounds == {f"CAP_{capability.name}" for capability in KEEPS} | NEEDED_AT_A_START - {"CAP_SYS_NICE"}
    assert found["Type"] == ["notify"] and "WatchdogSec" not in found, "it sends no signs of life"
    assert found["RestartPreventExitStatus"] == ["2 3"] and "bpf" in found["SystemCallFilter"][0].split()


def test_the_dashboard_s_unit_keeps_its_token_out_of_the_journal() -> None:
    (line,) = settings_of(DASHBOARD)["ExecStart"]
    assert line.startswith("controller dashboard ") and "--token-file /var/lib/pydbt/" in line


ARM = UNITS / "pydbt-arm@.service"


def arm_settings() -> dict[str, list[str]]:
    return settings_of(ARM)


def test_the_arming_before_a_mount_is_taken_by_systemd_with_the_orders_that_its_head_shows(tmp_path: Path) -> None:
    """Together with the mount and the replication there is no cycle: systemd would drop one of the jobs."""
    text = ARM.read_text().replace("=controller ", "=true ")
    (tmp_path / "pydbt-arm@data.service").write_text(text)
    folder = tmp_path / "pydbt-arm@data.service.d"
    folder.mkdir()
    example = [line[1:].strip() for line in text.splitlines() if line.startswith("#   ")]
    assert example[0] == "[Unit]" and len(example) == 4
    (folder / "order.conf").write_text("\n".join(example) + "\n")
    mount = "[Unit]\nBefore=local-fs.target\n[Mount]\nWhat=/dev/vda3\nWhere=/srv/data\n[Install]\nWantedBy=local-fs.target\n"
    (tmp_path / "srv-data.mount").write_text(mount)
    (tmp_path / "pydbt@data.service").write_text(path_of("run").read_text().replace("=controller ", "=true "))
    units = [tmp_path / name for name in ("pydbt-arm@data.service", "srv-data.mount", "pydbt@data.service")]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=60)
    lines = (done.stdout + done.stderr).splitlines()
    about_it = [line for line in lines if "pydbt" in line or "srv-data" in line or "cycle" in line]
    assert done.returncode == 0 and not about_it, done.stderr


def test_the_arming_and_the_closing_record_are_the_start_and_the_stop_of_one_unit() -> None:
    found = arm_settings()
    assert (found["ExecStart"], found["ExecStop"]) == (["controller arm %i"], ["controller disarm %i"])
    assert found["Type"] == ["oneshot"] and found["RemainAfterExit"] == ["yes"]
    assert found["DefaultDependencies"] == ["no"], "else it comes after all local mounts"
    assert found["Conflicts"] == ["shutdown.target"] and found["Before"] == ["shutdown.target"]
    assert "/var/lib/pydbt" in found["RequiresMountsFor"][0], (
        "at the shutdown the closing record is written before that is unmounted"
    )
    assert not HIDING & set(found)


HOLD = UNITS / "pydbt-hold@.service"


def hold_settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in HOLD.read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_the_hold_waits_for_no_local_mounts_and_systemd_takes_it_with_the_secondary(tmp_path: Path) -> None:
    for path in (HOLD, path_of("secondary")):
        name = path.name.replace("@", "@data")
        (tmp_path / name).write_text(path.read_text().replace("=controller ", "=true "))
    units = [tmp_path / name for name in ("pydbt-hold@data.service", "pydbt-secondary@data.service")]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=60)
    about_it = [line for line in (done.stdout + done.stderr).splitlines() if "pydbt" in line or "cycle" in line]
    assert done.returncode == 0 and not about_it, done.stderr
    found = hold_settings()
    assert found["ExecStart"] == ["controller hold %i"] and found["Type"] == ["notify"]
    assert found["DefaultDependencies"] == ["no"], "else it comes after all local mounts"
    assert "local-fs" not in " ".join(found["After"]) and not HIDING & set(found)


# The orders of these units in Debian 12 and 13 (lvm2, multipath-tools, mdadm, systemd, open-iscsi, ceph-common).
OF_DEVICES = {
    "multipathd.service": (
        "no",
        "Before=local-fs-pre.target blk-availability.service\nAfter=systemd-remount-fs.service",
    ),
    "blk-availability.service": ("no", "After=iscsid.service rbdmap.service"),
    "iscsid.service": ("no", "Wants=remote-fs-pre.target\nBefore=remote-fs-pre.target\nAfter=network.target"),
    "rbdmap.service": ("yes", "After=network-online.target\nBefore=remote-fs-pre.target"),
    "mdmonitor.service": ("no", "Before=local-fs-pre.target"),
    "systemd-cryptsetup@data.service": (
        "no",
        "After=cryptsetup-pre.target multipathd.service\nBefore=cryptsetup.target",
    ),
    "var.mount": ("no", "After=local-fs-pre.target blockdev@dev-vda4.target\nBefore=local-fs.target"),
}


def test_the_hold_comes_behind_what_makes_devices_in_no_circle_also_where_they_come_late(tmp_path: Path) -> None:
    """Else a link of a multipath disk leads to one path of it."""
    made = "multipathd.service", "cryptsetup.target", "blk-availability.service", "mdmonitor.service"
    assert set(made) <= set(" ".join(hold_settings()["After"]).split()) & set(
        " ".join(settings("secondary")["After"]).split()
    )
    for name, (default, order) in OF_DEVICES.items():
        body = "[Mount]\nWhat=/dev/vda4\nWhere=/var" if name.endswith(".mount") else "[Service]\nExecStart=true"
        (tmp_path / name).write_text(f"[Unit]\nDefaultDependencies={default}\n{order}\n{body}\n")
    wants = " ".join([*OF_DEVICES, "pydbt-secondary@data.service", "pydbt-hold@data.service"])
    (tmp_path / "all.target").write_text(
        f"[Unit]\nWants=sysinit.target local-fs.target local-fs-pre.target cryptsetup.target {wants}\n"
    )
    for path in (HOLD, path_of("secondary")):
        (tmp_path / path.name.replace("@", "@data")).write_text(path.read_text().replace("=controller ", "=true "))
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "all.target"], capture_output=True, text=True, timeout=60
    )
    assert "cycle" not in done.stdout + done.stderr


def test_the_hold_ends_with_its_secondary_and_not_by_itself() -> None:
    """systemd stops what no active unit wants; one that is started again after a failure counts as active (systemd.unit(5))."""
    assert hold_settings()["StopWhenUnneeded"] == ["yes"]
    secondary = settings("secondary")
    assert "pydbt-hold@%i.service" in secondary["Wants"] and secondary["Restart"] == ["on-failure"]


def test_the_secondary_begins_behind_the_hold_and_nobody_waits_for_the_device(tmp_path: Path) -> None:
    """The rules keep the unit of the target's device inactive: who waited for it would wait for ever."""
    found = settings("secondary")
    assert "pydbt-hold@%i.service" in found["Wants"] and "pydbt-hold@%i.service" in found["After"]
    for unit in (found, hold_settings()):
        assert not any(".device" in value or "/dev" in value for values in unit.values() for value in values)


@pytest.mark.parametrize("role", ROLES)
def test_either_unit_may_serve_either_role_behind_the_arming_and_the_hold(role: str) -> None:
    """The state decides the role, and not the unit: both begin behind the arming and end before the closing record."""
    assert "pydbt-arm@%i.service" in settings(role)["After"]
    assert "pydbt-hold@%i.service" in settings(role)["After"]
    assert "local-fs.target" in " ".join(settings(role)["After"]), (
        "it ends before the unmount, whose writes are tracked"
    )


GATE = UNITS / "pydbt-gate@.service"


def test_the_gate_is_taken_by_systemd_before_check_and_mount_and_behind_the_network_without_a_cycle(
    tmp_path: Path,
) -> None:
    text = GATE.read_text().replace("=controller ", "=true ")
    (tmp_path / "pydbt-gate@data.service").write_text(text)
    example = [line[1:].strip() for line in text.splitlines() if line.startswith("#   ")]
    fsck, mount = "systemd-fsck@dev-vda3.service", "srv-data.mount"
    lines = gate_lines("data", fsck, mount, ("_netdev",))
    assert lines == {fsck: tuple(example), mount: tuple(example)}
    for unit in lines:
        (tmp_path / f"{unit}.d").mkdir()
        (tmp_path / f"{unit}.d/gate.conf").write_text("\n".join(lines[unit]) + "\n")
    # As systemd-fstab-generator(8) writes it for a line with _netdev.
    (tmp_path / mount).write_text(
        "[Unit]\nBefore=remote-fs.target\nAfter=network-online.target\nRequires=systemd-fsck@dev-vda3.service\n"
        "After=systemd-fsck@dev-vda3.service\n[Mount]\nWhat=/dev/vda3\nWhere=/srv/data\nOptions=_netdev\n"
    )
    (tmp_path / "pydbt@data.service").write_text(path_of("run").read_text().replace("=controller ", "=true "))
    units = [tmp_path / name for name in ("pydbt-gate@data.service", mount, "pydbt@data.service")]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=60)
    said = (done.stdout + done.stderr).splitlines()
    about_it = [line for line in said if "pydbt" in line or "srv-data" in line or "cycle" in line]
    assert done.returncode == 0 and not about_it, done.stderr


def test_the_gate_is_asked_at_each_mount_and_before_everything_that_writes() -> None:
    found = settings_of(GATE)
    assert found["ExecStart"] == ["controller gate %i"] and found["Type"] == ["oneshot"]
    assert "RemainAfterExit" not in found, "a second mount would not be asked about"
    assert found["DefaultDependencies"] == ["no"] and "network-online.target" in " ".join(found["After"])
    assert found["TimeoutStartSec"] == ["infinity"], "on-unreachable says how long it waits"
    assert found["AssertPathExists"] == ["/etc/pydbt/volumes/%i.toml"]
    bounds = {name for line in found["CapabilityBoundingSet"] for name in line.split()}
    assert bounds == {"CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"}, "it reads files and opens no device"
