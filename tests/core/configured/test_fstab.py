"""Each mount of a device is found in every line that names one, and no other line changes that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.configured.fstab import PlannedMount, at_goal, mount_of_unit, mounts_in_fstab


def one(line: str) -> PlannedMount:
    (mount,) = mounts_in_fstab(line)
    return mount


def test_a_line_names_device_point_and_unit() -> None:
    mount = one("UUID=1-2\t/srv/data  ext4 defaults,nofail 0 2")
    assert mount == PlannedMount(
        "/srv/data in /etc/fstab",
        "UUID=1-2",
        "/dev/disk/by-uuid/1-2",
        "/srv/data",
        "srv-data.mount",
        True,
        (),
        1,
        ("defaults", "nofail"),
    )


@pytest.mark.parametrize(
    "line",
    [
        "",
        "   ",
        "# /dev/vda3 /srv ext4",
        "\t#x",
        "/dev/vda3",
        "/dev/vda3 none swap sw 0 0",
        "/dev/vda3 /swap swap sw 0 0",
        "/dev/vda3 none ext4",
        "/dev/vda3 srv ext4 defaults",
        "\0/dev/vda3 /srv ext4",
    ],
)
def test_a_line_that_mounts_nothing_is_left_out(line: str) -> None:
    assert mounts_in_fstab(line) == []


def test_numbers_of_characters_are_read_as_getmntent_does() -> None:
    mount = one(r"LABEL=my\040disk /mnt/a\040b\134c\\d\011e\043f ext4")
    assert mount.device == r"/dev/disk/by-label/my\x20disk" and mount.point == "/mnt/a b\\c\\d\te\\043f"
    assert mount.where == r"/mnt/a b\c\d\te\043f in /etc/fstab", "one line for a person"


def test_bytes_that_are_no_text_are_bytes_of_the_names() -> None:
    mount = one(b"/dev/vda3 /mnt/\xff ext4".decode("utf-8", "surrogateescape"))
    assert mount.unit == "mnt-\\xff.mount" and mount.where == "/mnt/\\udcff in /etc/fstab"


@pytest.mark.parametrize(
    ("options", "at_boot"),
    [
        ("defaults", True),
        ("noauto", False),
        ("nofail,noauto", False),
        ("nofail", True),
        ("_netdev", True),
        ("x-systemd.automount", True),
        ("x-systemd.automount,noauto", False),
        ("noautofs", True),
        ("", True),
    ],
)
def test_only_noauto_is_not_mounted_at_a_boot(options: str, at_boot: bool) -> None:
    assert one(f"/dev/vda3 /srv ext4 {options}").at_boot is at_boot


def test_the_paths_that_must_be_mounted_before_a_mount_are_known() -> None:
    assert one("/srv/data/v /var none bind").needs == ("/srv/data/v",)
    assert one("/srv/data/v /var none bind").device == ""
    options = 'x-systemd.requires-mounts-for=/a/b/,ro,x-systemd.requires-mounts-for="/c"'
    assert one(f"/dev/vda3 /srv ext4 {options}").needs == ("/a/b", "/c")
    assert one("server:/x /srv nfs").needs == () and one("tmpfs /tmp tmpfs").needs == ()


def test_a_mount_point_that_is_a_link_has_the_unit_of_its_goal() -> None:
    mount = one("/dev/vda3 /srv/data ext4")
    assert at_goal(mount, "/data").unit == "data.mount" and at_goal(mount, "/data").where == mount.where
    assert at_goal(mount, mount.point) == mount


UNIT = """# a comment
[Unit]
Description=What=/dev/no
RequiresMountsFor=/a /b
[Mount]
; another
What = /dev/disk/by-label/x
Where=/srv/data/
Options=\\
# between
 ro
"""


def test_a_unit_of_a_mount_is_read() -> None:
    mount = mount_of_unit("/etc/systemd/system/srv-data.mount", "srv-data.mount", UNIT)
    where = "/srv/data in /etc/systemd/system/srv-data.mount"
    device = "/dev/disk/by-label/x"
    assert mount == PlannedMount(where, device, device, "/srv/data", "srv-data.mount", True, ("/a", "/b"))


@pytest.mark.parametrize(
    ("what", "device"),
    [("UUID=1", "/dev/disk/by-uuid/1"), ("/dev/x%%y", "/dev/x%y"), ("/dev/%i", ""), ("tmpfs", "")],
)
def test_the_device_that_a_unit_mounts_is_known(what: str, device: str) -> None:
    mount = mount_of_unit("f", "srv.mount", f"[Mount]\nWhat=/dev/first\nWhat={what}\nWhere=/srv\n")
    assert mount is not None and mount.device == device


@pytest.mark.parametrize(
    "text", ["", "[Mount]\nWhat=/dev/x\n", "[Mount]\nWhere=/srv\n", "[Unit]\nWhat=/dev/x\nWhere=/x\n"]
)
def test_a_unit_that_names_nothing_to_mount_is_none(text: str) -> None:
    assert mount_of_unit("f", "srv.mount", text) is None


LINES = st.text(st.characters(codec="utf-8", exclude_characters="\n") | st.sampled_from("\\ \t#/=,\"'\0\udcff"))


@given(st.lists(LINES), st.lists(LINES))
def test_no_line_changes_what_another_one_says(before: list[str], after: list[str]) -> None:
    good = "UUID=1-2 /srv/data ext4 defaults 0 2"
    expected = [*mounts_in_fstab("\n".join(before)), one(good), *mounts_in_fstab("\n".join(after))]
    found = mounts_in_fstab("\n".join([*before, good, *after]))
    assert [mount._replace(line=0) for mount in found] == [mount._replace(line=0) for mount in expected]
    assert found[len(mounts_in_fstab("\n".join(before)))].line == len(before) + 1


@given(LINES, st.lists(LINES))
def test_any_text_of_a_unit_can_be_read(what: str, lines: list[str]) -> None:
    mount_of_unit("f", "x.mount", "\n".join([*lines, "[Mount]", f"What={what}", "Where=/x", *lines]))
