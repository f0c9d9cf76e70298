"""Each device that fstab, crypttab and mdadm.conf name is found, with its line."""

from __future__ import annotations

import pytest

from pydbt.core.configured.foreign_claims import claims_in, path_of_spec


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("/dev/vdb", "/dev/vdb"),
        ("UUID=ABCD-ef01", "/dev/disk/by-uuid/abcd-ef01"),
        ('UUID="abcd"', "/dev/disk/by-uuid/abcd"),
        ("LABEL=My Data", r"/dev/disk/by-label/My\x20Data"),
        ("PARTUUID=1-2", "/dev/disk/by-partuuid/1-2"),
        ("PARTLABEL=x", "/dev/disk/by-partlabel/x"),
        ("ID=wwn-0x5", "/dev/disk/by-id/wwn-0x5"),
        ("UUID=", ""),
        ("tmpfs", ""),
        ("server:/export", ""),
        ("none", ""),
    ],
)
def test_what_is_written_leads_to_a_device_or_to_none(written: str, path: str) -> None:
    assert path_of_spec(written) == path


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
