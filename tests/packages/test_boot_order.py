"""The order of a boot beside systemd itself: its names of units, its generator on the same fstab, its judgement of the whole."""

from __future__ import annotations

import os
import random
import re
import subprocess
from pathlib import Path

import pytest

from pydbt.controller.boot_generator import VOLUME_FILES, main
from pydbt.core.configured.boot_order import names_text
from pydbt.core.configured.fstab import PlannedMount, at_goal, mounts_in_fstab
from pydbt.core.configured.unit_names import fsck_unit, simplified, unit_of_path
from tests.lab.programs import ROOT

SYSTEMD_GENERATOR = "/usr/lib/systemd/system-generators/systemd-fstab-generator"
PARTS = [
    "a",
    "b-c",
    ".x",
    "x.y",
    "ä",
    "€",
    "\udcff",
    " ",
    "\t",
    "\\",
    "@",
    ":",
    "%i",
    "#",
    "'",
    '"',
    "$",
    ",",
    "=",
    "\x01",
    "~",
]
SPECS = ["/dev/vda3", "UUID=1-2", "LABEL=my\\040disk", "LABEL=ä/b", "PARTUUID=A-1", "PARTLABEL=p#'x", "/dev/mapper/vg-a--b",
         'LABEL="q"', "LABEL=\udcfe\\134x", "/dev//vg/./data/", "/srv/image", "tmpfs", "server:/x", "LABEL="]  # fmt: skip


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    seed = int(os.environ.get("TORTURE_SEED") or random.SystemRandom().randrange(1 << 31))
    print(f"TORTURE_SEED={seed} ({request.node.nodeid})")
    return random.Random(f"{seed} {request.node.name}")


def a_path(chance: random.Random) -> str:
    return "/" + "/".join("".join(chance.choices(PARTS, k=chance.randint(1, 4))) for _ in range(chance.randint(0, 4)))


def test_a_path_has_the_unit_that_systemd_escape_names(chance: random.Random) -> None:
    paths = ["/", "//", "/.", "/-", "/.a/.b", *(a_path(chance) for _ in range(400))]
    words = ["systemd-escape", "--path", "--suffix=mount", "--", *map(os.fsencode, paths)]
    said = subprocess.run(words, capture_output=True, timeout=60, check=True).stdout
    assert said.decode().split() == [unit_of_path(path, "mount") for path in paths]


def units_of_systemd(folder: Path, fstab: str) -> dict[str, str]:
    """The units of mounts that systemd's own generator makes, by name, with their texts."""
    file = folder / "fstab.systemd"
    file.write_bytes(fstab.encode("utf-8", "surrogateescape"))
    places = [folder / name for name in ("normal", "early", "late")]
    for place in places:
        place.mkdir(exist_ok=True)
    subprocess.run(
        [SYSTEMD_GENERATOR, *places], env={"SYSTEMD_FSTAB": str(file)}, capture_output=True, timeout=60, check=False
    )
    return {os.fsdecode(path.name): path.read_bytes().decode("utf-8", "surrogateescape")
            for path in places[0].glob("*.mount")}  # fmt: skip


def as_written(text: str) -> str:
    return "".join({" ": "\\040", "\t": "\\011", "\n": "\\012", "\\": "\\134"}.get(one, one) for one in text)


def test_fstab_mounts_what_systemd_s_generator_mounts(chance: random.Random, tmp_path: Path) -> None:
    for attempt in range(12):
        lines = []
        for _ in range(12):
            point = f"/nowhere{a_path(chance)}"
            fields = [
                chance.choice(SPECS),
                as_written(point),
                "ext4",
                chance.choice(["defaults", "noauto", "nofail"]),
                "0",
                "2",
            ]
            lines.append(chance.choice([" ", "\t", "  "]).join(fields[: chance.choice([6, 6, 6, 4, 2, 1])]))
        lines.insert(3, "# comment")
        folder = tmp_path / str(attempt)
        folder.mkdir()
        text = "\n".join(lines) + "\n"
        theirs = units_of_systemd(folder, text)
        ours = {mount.unit: mount for mount in map(followed, mounts_in_fstab(text)) if mount.unit}
        # Two lines for one point: systemd takes the first, and both are ordered here. A unit's name in a folder is not escaped.
        assert set(ours) == {name for name in theirs if name != "-.mount"} | (set(ours) & {"-.mount"}), text
        for mount in map(followed, mounts_in_fstab(text)):
            unit = theirs[mount.unit]
            what = re.search(r"^What=(.*)$", unit, re.MULTILINE)
            assert what is not None
            if (
                mount.device
                and simplified(unquoted(what[1])) == mount.device
                and (fsck := re.search(r"^After=(.*fsck.*)$", unit, re.M))
            ):
                assert fsck[1] == fsck_unit(mount.device), text


def followed(mount: PlannedMount) -> PlannedMount:
    return at_goal(mount, os.path.realpath(mount.point))


def unquoted(value: str) -> str:
    """As systemd writes a value into a unit (specifier_escape, src/shared/specifier.h)."""
    return value.replace("%%", "%").replace("\\x5c", "\\") if "%" in value else value


@pytest.fixture
def boot(tmp_path: Path) -> Path:
    """A root with a volume `data` whose arming is enabled, and the units of this tree."""
    root = tmp_path / "root"
    (root / VOLUME_FILES).mkdir(parents=True)
    (root / VOLUME_FILES / "data.toml").write_text('[run]\nsource = "/dev/vda3"\n')
    (root / VOLUME_FILES / "data.names").write_text(
        names_text("/dev/vda3", ["/dev/vda3", "/dev/disk/by-uuid/1-2", "/dev/vg/a-b"])
    )
    wants = root / "etc/systemd/system/local-fs.target.wants"
    wants.mkdir(parents=True)
    (wants / "pydbt-arm@data.service").symlink_to("/usr/lib/systemd/system/pydbt-arm@.service")
    return root


LINES = [
    "UUID=1-2 /srv/data ext4 defaults 0 2",
    "/dev/vg/a-b /mnt/a\\040b xfs nofail,x-systemd.device-timeout=5 0 0",
    "/dev/vda3 /mnt/auto ext4 x-systemd.automount,nofail 0 2",
    "UUID=1-2 /mnt/net ext4 _netdev 0 2",
    "UUID=1-2 /mnt/by-hand ext4 noauto 0 2",
    "/srv/data/www /srv/www none bind 0 0",
    "UUID=9-9 /srv/other ext4 defaults 0 2",
]


def verify(folder: Path, *units: str) -> list[str]:
    """What systemd says of units in a folder, and of nothing else."""
    words = ["systemd-analyze", "verify", *(str(folder / unit) for unit in units)]
    environment = {"SYSTEMD_UNIT_PATH": f"{folder}:", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if "pydbt" in line or "cycle" in line.lower() or "mnt-" in line or "srv-" in line]


def generated(root: Path, folder: Path, *lines: str) -> dict[str, str]:
    """Both generators on one fstab, into one folder; systemd's own units."""
    fstab = "\n".join(lines) + "\n"
    (root / "etc/fstab").write_text(fstab)
    units = units_of_systemd(folder, fstab)
    assert main([str(folder / "normal")], root, str(root / "log-that-is-not-there")) == 0
    for name in ("pydbt-arm@", "pydbt-gate@", "pydbt@"):
        text = (ROOT / f"packaging/systemd/{name}.service").read_text()
        (folder / f"normal/{name}data.service").write_text(text.replace("=controller ", "=true "))
    return units


def test_the_order_names_the_units_of_systemd_s_generator_and_systemd_takes_it(boot: Path, tmp_path: Path) -> None:
    units = generated(boot, tmp_path, *LINES)
    order = (tmp_path / "normal/pydbt-arm@data.service.d/pydbt-order.conf").read_text()
    before = re.findall(r"^Before=(.*)$", order, re.MULTILINE)
    points = {unit for unit in before if unit.endswith(".mount")}
    assert points == set(units) - {"srv-www.mount", "srv-other.mount"} and len(points) == 5
    checks = {name for text in units.values() for name in re.findall(r"^After=(systemd-fsck@.*)$", text, re.MULTILINE)}
    assert {"systemd-fsck@dev-disk-by\\x2duuid-1\\x2d2.service", "systemd-fsck@dev-vda3.service"} <= checks & set(
        before
    )
    made = {name for name in points for name in re.findall(r"^After=(blockdev@.*)$", units[name], re.MULTILINE)}
    assert made and made <= set(re.findall(r"^After=(.*)$", order, re.MULTILINE)), "behind what makes the device"
    assert not verify(tmp_path / "normal", "pydbt-arm@data.service", "pydbt@data.service", *sorted(units))


@pytest.mark.parametrize(
    ("lines", "gated"),
    [
        (["UUID=1-2 /srv/data ext4 _netdev 0 2"], 2),
        (["UUID=1-2 /srv/data ext4 _netdev 0 2", "UUID=1-2 /mnt/early ext4 defaults 0 2"], 1),
        (["UUID=1-2 /srv/data ext4 _netdev 0 2", "UUID=1-2 /mnt/hand ext4 noauto 0 2"], 2),
        (["UUID=1-2 /var ext4 _netdev 0 2"], 0),
    ],
)
def test_the_gate_makes_no_circle_with_any_network_that_comes_behind_the_local_mounts(
    boot: Path, tmp_path: Path, lines: list[str], gated: int
) -> None:
    """As networking.service of Debian does."""
    units = generated(boot, tmp_path, *lines)
    (tmp_path / "normal/pydbt-gate@data.service.d/network.conf").write_text("[Unit]\nAfter=local-fs.target\n")
    assert len(list((tmp_path / "normal").glob("*/pydbt-gate.conf"))) == gated
    # One that is mounted by hand is mounted after the boot, when no job of local-fs.target is left.
    of_boot = sorted(unit for unit in units if unit != "mnt-hand.mount")
    assert not verify(tmp_path / "normal", "pydbt-gate@data.service", "pydbt@data.service", *of_boot)


@pytest.mark.parametrize(
    "lines",
    [
        ["UUID=1-2 /var ext4 defaults 0 2"],
        ["UUID=1-2 /data ext4 defaults 0 2", "/data/var /var none bind 0 0"],
        ["UUID=1-2 /data ext4 defaults 0 2", "UUID=9 /var ext4 x-systemd.requires-mounts-for=/data 0 2"],
    ],
)
def test_where_the_arming_needs_the_mount_there_is_no_circle(boot: Path, tmp_path: Path, lines: list[str]) -> None:
    units = generated(boot, tmp_path, *lines)
    assert not verify(tmp_path / "normal", "pydbt-arm@data.service", *sorted(units))
    forced = tmp_path / "normal/pydbt-arm@data.service.d/forced.conf"
    forced.write_text("[Unit]\nBefore=var.mount data.mount\n")
    assert any(
        "cycle" in line.lower() for line in verify(tmp_path / "normal", "pydbt-arm@data.service", *sorted(units))
    )
