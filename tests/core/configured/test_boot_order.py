"""A volume is armed before each of its mounts that can wait for it; each other one is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.configured.boot_order import (
    ArmedVolume,
    arming_order,
    known_names,
    names_text,
    state_mounts,
    units_ordered_by,
    unordered,
)
from pydbt.core.configured.fstab import PlannedMount, mounts_in_fstab

NAMES = frozenset({"/dev/vda3", "/dev/disk/by-uuid/1-2", "/dev/disk/by-label/x", "/dev/mapper/vg-data", "/dev/vg/data"})
VOLUME = ArmedVolume("data", "/dev/vda3", NAMES, ("/var/lib/pydbt/data",))


def mounts(*lines: str) -> list[PlannedMount]:
    return mounts_in_fstab("\n".join(lines))


def lines_of(volume: ArmedVolume, *lines: str) -> list[str]:
    return arming_order(volume, mounts(*lines)).text.splitlines()[1:]


def test_the_arming_waits_for_the_device_and_the_check_and_the_mount_wait_for_the_arming() -> None:
    drop_in = arming_order(VOLUME, mounts("UUID=1-2 /srv/data ext4 defaults 0 2"))
    assert (drop_in.unit, drop_in.file) == ("pydbt-arm@data.service", "pydbt-order.conf")
    assert drop_in.words == "data is armed before the mount of /srv/data"
    assert drop_in.text.splitlines()[1:] == [
        "[Unit]",
        "RequiresMountsFor=/var/lib/pydbt/data",
        "Wants=dev-vda3.device",
        "After=dev-vda3.device",
        "Wants=dev-disk-by\\x2duuid-1\\x2d2.device",
        "After=dev-disk-by\\x2duuid-1\\x2d2.device",
        "After=blockdev@dev-vda3.target",
        "After=blockdev@dev-disk-by\\x2duuid-1\\x2d2.target",
        "After=blockdev@dev-mapper-vg\\x2ddata.target",
        "Before=systemd-fsck@dev-disk-by\\x2duuid-1\\x2d2.service",
        "Before=srv-data.mount",
    ]


@pytest.mark.parametrize("spec", ["/dev/vda3", "LABEL=x", "/dev/mapper/vg-data", "/dev/vg/data", "/dev//vg/./data"])
def test_every_kept_name_is_the_volume(spec: str) -> None:
    assert "Before=srv.mount" in lines_of(VOLUME, f"{spec} /srv ext4")


def test_a_unit_waits_for_the_mounts_of_the_state_by_every_path_that_systemd_can_be_told() -> None:
    drop_in = state_mounts("pydbt-gate@data.service", VOLUME._replace(needs=("/srv/state", "/mnt/50%", "/goal")))
    assert drop_in is not None and drop_in.unit == "pydbt-gate@data.service"
    assert drop_in.text.splitlines()[1:] == ["[Unit]", "RequiresMountsFor=/srv/state", "RequiresMountsFor=/goal"]
    assert state_mounts("pydbt-gate@data.service", VOLUME._replace(needs=("/mnt/50%",))) is None


def test_without_kept_names_the_source_alone_is_known() -> None:
    fresh = ArmedVolume("data", "/dev/vda3")
    assert "Before=srv.mount" in lines_of(fresh, "/dev/vda3 /srv ext4", "UUID=1-2 /mnt ext4")
    assert "Before=mnt.mount" not in lines_of(fresh, "/dev/vda3 /srv ext4", "UUID=1-2 /mnt ext4")
    assert "Wants=dev-vda3.device" in lines_of(fresh)


def test_a_source_that_udev_does_not_know_is_not_waited_for() -> None:
    """A link that a person made has no unit: the boot would wait for it in vain."""
    by_hand = VOLUME._replace(source="/dev/mine")
    lines = [line for line in lines_of(by_hand)[1:] if ".target" not in line]
    assert lines == ["RequiresMountsFor=/var/lib/pydbt/data"]
    assert "Before=srv.mount" in lines_of(by_hand, "/dev/mine /srv ext4")
    assert "After=dev-vda3.device" in lines_of(by_hand, "/dev/vda3 /srv ext4")


def test_a_mount_that_somebody_asks_for_waits_and_its_device_is_not_waited_for() -> None:
    found = lines_of(VOLUME, "LABEL=x /srv ext4 noauto")
    assert "Before=srv.mount" in found and "Wants=dev-disk-by\\x2dlabel-x.device" not in found


@pytest.mark.parametrize("options", ["nofail", "_netdev", "x-systemd.automount", "nofail,x-systemd.device-timeout=1"])
def test_options_do_not_change_the_order(options: str) -> None:
    assert "Before=srv.mount" in lines_of(VOLUME, f"LABEL=x /srv ext4 {options} 0 2")


def test_other_devices_wait_for_nothing() -> None:
    drop_in = arming_order(
        VOLUME, mounts("/dev/vda1 / ext4", "UUID=9 /srv ext4", "/srv/x /mnt none bind", "tmpfs /tmp tmpfs")
    )
    assert "Before=" not in drop_in.text and drop_in.words == "nothing mounts data by a name that it is known by"


CIRCLES = [
    (["/dev/vda3 / ext4"], "/"),
    (["/dev/vda3 /var ext4"], "/var"),
    (["/dev/vda3 /var/lib/pydbt ext4"], "/var/lib/pydbt"),
    (["/dev/vda3 /usr ext4"], "/usr"),
    (["/dev/vda3 /data ext4", "/data/var /var none bind"], "/data"),
    (["/dev/vda3 /data ext4", "/data/image /var ext4 loop"], "/data"),
    (["/dev/vda3 /data ext4", "/dev/vda9 /var ext4 x-systemd.requires-mounts-for=/data/key"], "/data"),
    (["/dev/vda3 /data ext4", "/data/a /b none bind", "/b/c /var none bind"], "/data"),
]


@pytest.mark.parametrize(("lines", "point"), CIRCLES)
def test_a_mount_that_the_arming_needs_does_not_wait_for_it_and_is_named(lines: list[str], point: str) -> None:
    """systemd would drop a job of the circle, and the machine might not boot."""
    assert not [line for line in lines_of(VOLUME, *lines) if line.startswith("Before=")]
    words = f"{point} in /etc/fstab names /dev/vda3, and the arming needs what is mounted there"
    assert unordered(VOLUME, mounts(*lines), frozenset()) == words


def test_a_state_directory_elsewhere_is_needed_as_well() -> None:
    volume = VOLUME._replace(needs=("/state/data",))
    assert not [line for line in lines_of(volume, "/dev/vda3 /state ext4") if line.startswith("Before=")]
    assert "RequiresMountsFor=/state/data" in lines_of(volume)
    assert not [line for line in lines_of(VOLUME._replace(needs=("/s%t a",))) if "Requires" in line]


def test_another_mount_of_the_volume_is_still_ordered() -> None:
    assert "Before=srv.mount" in lines_of(VOLUME, "/dev/vda3 /var ext4", "/dev/vda3 /srv ext4")


def test_a_mount_below_a_path_that_the_boot_needs_can_wait() -> None:
    assert "Before=var-lib-db.mount" in lines_of(VOLUME, "/dev/vda3 /var/lib/db ext4")
    assert "Before=usr-local-x.mount" in lines_of(VOLUME, "/dev/vda3 /usr/local/x ext4")


def test_a_mount_without_a_unit_is_named() -> None:
    line = f"/dev/vda3 /{'x' * 300} ext4"
    assert not [one for one in lines_of(VOLUME, line) if one.startswith("Before=")]
    assert unordered(VOLUME, mounts(line), frozenset()).endswith("systemd has no unit for this mount point")


def test_a_mount_by_a_name_that_was_not_known_is_named() -> None:
    found = mounts("LABEL=x /srv/data ext4", "UUID=1-2 /mnt ext4 noauto", "/dev/vda1 / ext4")
    assert unordered(VOLUME, found, frozenset({"srv-data.mount"})) == ""
    assert unordered(VOLUME, found, frozenset()) == (
        "/srv/data in /etc/fstab names LABEL=x, by which the volume was not known when the machine was booted"
    )
    assert unordered(VOLUME, [], frozenset()) == ""


def test_the_ordered_units_are_read_back_from_the_text() -> None:
    texts = [
        arming_order(VOLUME, mounts("LABEL=x /srv/a-b ext4")).text,
        "[Unit]\n Before=a.mount  b.mount\n#Before=c.mount\n",
    ]
    assert units_ordered_by(texts) >= {"srv-a\\x2db.mount", "a.mount", "b.mount"}
    assert "c.mount" not in units_ordered_by(texts)


def test_names_are_kept_for_their_source_alone() -> None:
    text = names_text("/dev/vda3", NAMES)
    assert known_names(text, "/dev/vda3") == NAMES
    assert known_names(text, "/dev/vdb") == frozenset()
    assert known_names("", "/dev/vda3") == frozenset() == known_names("x\0\n\nname /dev/x", "/dev/vda3")
    assert names_text("/dev/a\nb", NAMES) == "" == names_text("/dev/a", ["/dev/x\ny"])
    assert names_text("/dev/vda3", sorted(NAMES)) == names_text("/dev/vda3", [*NAMES, *NAMES]), (
        "the same text each time"
    )


SPECS = st.sampled_from([*sorted(NAMES), "UUID=1-2", "LABEL=x", "LABEL=other", "/dev/vdb", "/srv/x", "tmpfs", "/a/b"])
POINTS = st.lists(st.sampled_from(["srv", "var", "lib", "pydbt", "a", "b", "x-y", "usr"]), max_size=4).map("/".join)
OPTIONS = st.sampled_from(["defaults", "noauto", "nofail", "bind", "x-systemd.requires-mounts-for=/a/b"])
FSTAB = st.lists(st.tuples(SPECS, POINTS, OPTIONS), max_size=8)


@given(FSTAB)
def test_each_mount_of_the_volume_is_ordered_or_named_and_the_order_has_no_circle(
    fstab: list[tuple[str, str, str]],
) -> None:
    found = mounts(*(f"{spec} /{point} ext4 {options}" for spec, point, options in fstab))
    before = units_ordered_by([arming_order(VOLUME, found).text])
    mine = [mount for mount in found if mount.device in NAMES]
    said = unordered(VOLUME, found, before)
    for mount in mine:
        assert mount.unit in before or not mount.at_boot or said
    # What the arming needs, found by another way than the code's: a fixed point over all mounts.
    needed, grew = {"/etc", "/usr", "/var/cache/pydbt", "/var/lib/pydbt/data", "/var/lib/pydbt"}, True
    while grew:
        more = {
            path for mount in found for need in needed if f"{need}/".startswith(mount.point.rstrip("/") + "/")
            for path in (mount.point, *mount.needs)
        }  # fmt: skip
        grew, needed = not more <= needed, needed | more
    assert not {mount.unit for mount in found if mount.point in needed} & before


def test_a_device_that_encryption_makes_is_taken_away_after_the_closing_record_by_whatever_name_the_volume_goes() -> (
    None
):
    """``systemd-cryptsetup@data`` comes before this target, and so ends behind it."""
    for source in ("/dev/mapper/secret", "/dev/disk/by-uuid/1-2"):
        volume = ArmedVolume("data", source, frozenset({"/dev/mapper/secret", "/dev/disk/by-uuid/1-2", "/dev/dm-0"}))
        assert "After=blockdev@dev-mapper-secret.target" in lines_of(volume, "UUID=1-2 /srv/data ext4")


def test_a_unit_that_takes_devices_away_at_the_shutdown_comes_after_the_closing_record() -> None:
    text = arming_order(VOLUME, mounts("UUID=1-2 /srv/data ext4"), ("blk-availability.service",)).text
    assert "After=blk-availability.service\n" in text
