"""The order of the gate: check and mount wait for it, and nothing is ordered that systemd would have to drop."""

from __future__ import annotations

import pytest

from pydbt.core.configured.boot_order import ArmedVolume
from pydbt.core.configured.fstab import mounts_in_fstab
from pydbt.core.configured.gate_units import gate_lines, gate_order, why_not_gated

FSCK, MOUNT = "systemd-fsck@dev-vda3.service", "srv-data.mount"
LINES = ("[Unit]", "Requires=pydbt-gate@data.service", "After=pydbt-gate@data.service")


def test_the_check_and_the_mount_require_the_gate_and_come_after_it() -> None:
    assert gate_lines("data", FSCK, MOUNT, ("defaults", "_netdev")) == {FSCK: LINES, MOUNT: LINES}


def test_a_file_system_that_is_not_checked_has_the_lines_of_its_mount_alone() -> None:
    assert gate_lines("data", "", MOUNT, ("_netdev",)) == {MOUNT: LINES}


@pytest.mark.parametrize("options", [("defaults",), ("noauto",), ("x-_netdev",), ()])
def test_a_mount_before_the_network_gets_no_lines_because_they_would_be_a_cycle(options: tuple[str, ...]) -> None:
    assert gate_lines("data", FSCK, MOUNT, options) == {}


def test_a_line_of_the_boot_without_netdev_is_refused_in_one_sentence() -> None:
    assert "_netdev" in why_not_gated(("defaults", "nofail"))
    assert why_not_gated(("nofail", "_netdev")) == "" and why_not_gated(("noauto",)) == ""
    assert "_netdev" in why_not_gated(("noauto", "x-systemd.automount")), "whoever looks there mounts it"


def test_a_check_that_a_mount_before_the_network_requires_as_well_does_not_wait() -> None:
    volume = ArmedVolume("data", "/dev/vda3")
    both = mounts_in_fstab("/dev/vda3 /srv/data ext4 _netdev 0 2\n/dev/vda3 /mnt ext4 defaults 0 2\n")
    assert [drop_in.unit for drop_in in gate_order(volume, both)] == [MOUNT]
    assert [drop_in.unit for drop_in in gate_order(volume, both[:1])] == [FSCK, MOUNT]
