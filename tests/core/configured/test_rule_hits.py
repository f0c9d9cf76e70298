"""A rule is known to hit each device that udev or LVM would take for the target."""

from __future__ import annotations

import pytest

from pydbt.core.configured.rule_hits import SeenDevice, is_hit
from pydbt.core.configured.target_rules import Match, TargetRule

SDA = SeenDevice(
    "/dev/sda", (8, 0), None, (("sda", {}), ("0:0:0:0", {"wwid": "naa.5", "serial": "S1"}), ("0000:00:05.0", {})),
    ("/dev/sda", "/dev/disk/by-id/wwn-5", "/dev/disk/by-path/pci-1"),
)  # fmt: skip
SDA2 = SDA._replace(
    path="/dev/sda2", partition=2, above=(("sda2", {}), *SDA.above), names=("/dev/sda2", "/dev/disk/by-id/wwn-5-part2")
)
DM = SeenDevice(
    "/dev/dm-0", (254, 0), None, (("dm-0", {"dm/uuid": "LVM-a", "dm/name": "vg-a"}),), ("/dev/mapper/vg-a",)
)


@pytest.mark.parametrize(
    ("match", "links", "hit"),
    [
        (Match("ATTRS{wwid}", "naa.5"), (), [SDA]),
        (Match("ATTRS{wwid}", "naa.6"), (), []),
        (Match("ATTRS{serial}", "S*"), (), [SDA]),
        (Match("ATTRS{serial}", "S1.*"), (), []),
        (Match("ATTRS{serial}", "S1", 2), (), [SDA2]),
        (Match("ATTRS{serial}", "S1", 3), (), []),
        (Match("KERNELS", "0000:00:05.0"), (), [SDA]),
        (Match("KERNELS", "0000:00:05.0", 2), (), [SDA2]),
        (Match("KERNEL", "sda", lasting=False), (), [SDA, SDA2]),
        (Match("SYMLINK", "disk/by-id/wwn-5"), (), [SDA]),
        (Match("ATTR{dm/uuid}", "LVM-a"), (), [DM]),
        (Match("ATTR{dm/name}", "vg-b"), (), []),
        (Match("ATTRS{wwid}", "none"), ("/dev/mapper/vg-a",), [DM]),
        (Match("ATTRS{wwid}", "none"), ("/dev/disk/by-id/wwn-5",), [SDA, SDA2]),
        (Match("ATTRS{wwid}", "none"), ("/dev/disk/by-path/pci-1",), []),
        (Match("KERNELS", "none"), ("/dev/disk/by-path/pci-1",), [SDA]),
    ],
)
def test_every_device_that_a_rule_or_a_pattern_hits_is_found(
    match: Match, links: tuple[str, ...], hit: list[SeenDevice]
) -> None:
    rule = TargetRule("a", "/dev/x", match, links)
    assert [one for one in (SDA, SDA2, DM) if is_hit(rule, one)] == hit
