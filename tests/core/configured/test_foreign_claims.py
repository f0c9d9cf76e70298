"""Each device that fstab, crypttab and mdadm.conf name is found, with its line."""

from __future__ import annotations

import pytest

from pydbt.core.configured.foreign_claims import claims_in
from pydbt.core.configured.fstab import mounts_in_fstab


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("/dev/vdb", "/dev/vdb"),
        ("/dev//my\\040disk", "/dev/my disk"),
        ("UUID=ABCD-EF01", "/dev/disk/by-uuid/ABCD-EF01"),
        ('UUID="abcd"', "/dev/disk/by-uuid/abcd"),
        ("LABEL=My\\040Data", r"/dev/disk/by-label/My\x20Data"),
        ("ID=wwn-0x5", "/dev/disk/by-id/wwn-0x5"),
        ("UUID=", None),
        ("tmpfs", None),
        ("server:/export", None),
        ("none", None),
    ],
)
def test_a_line_names_the_device_that_its_mount_names(written: str, path: str | None) -> None:
    """By the one reader of this field, which the order of the boot goes by too."""
    line = f"{written} /srv ext4 defaults 0 2\n"
    claims = list(claims_in("/etc/fstab", line))
    assert [(one.written, one.path) for one in claims] == ([] if path is None else [(written, path)])
    (mount,) = mounts_in_fstab(line)
    assert mount.device == (path or "")


def test_each_file_has_its_own_column() -> None:
    fstab = "# UUID=no\n\nUUID=a /srv ext4 defaults 0 2\n/dev/vdb none swap sw\nproc /proc proc\n"
    assert [(one.line, one.path) for one in claims_in("/etc/fstab", fstab)] == [
        (3, "/dev/disk/by-uuid/a"), (4, "/dev/vdb"),
    ]  # fmt: skip
    crypttab = "data UUID=b none luks\nshort\n"
    assert [one.path for one in claims_in("/etc/crypttab", crypttab)] == ["/dev/disk/by-uuid/b"]
    mdadm = "DEVICE partitions\nARRAY /dev/md0 devices=/dev/vdb,/dev/vdc UUID=1:2\narray /dev/md1 UUID=3:4\n"
    assert [(one.line, one.written) for one in claims_in("/etc/mdadm/mdadm.conf", mdadm)] == [
        (2, "/dev/vdb"), (2, "/dev/vdc"),
    ]  # fmt: skip
    assert not list(claims_in("/etc/other", fstab))
