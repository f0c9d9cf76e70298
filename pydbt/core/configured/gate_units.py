"""What systemd is to be told so that a volume's file system is neither checked nor mounted before its gate is open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydbt.core.configured.boot_order import ArmedVolume, DropIn, needed_by
from pydbt.core.configured.fstab import AUTOMOUNT, PlannedMount
from pydbt.core.configured.unit_names import fsck_unit

NETWORK_OPTION = "_netdev"


def gate_unit(name: str) -> str:
    """The unit that asks the secondaries of a configured volume."""
    return f"pydbt-gate@{name}.service"


def gate_lines(name: str, fsck_unit: str, mount_unit: str, options: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The lines of a drop-in for each of the two units, by unit; an empty ``fsck_unit``: the file system is not checked.

    The check is a write too: ``e2fsck`` replays the journal. ``options`` are those of the line of ``fstab``. Without ``_netdev``
    there are no lines: the mount is ordered before ``local-fs.target``, and the network of Debian behind it, so that systemd
    would have to break a cycle, and would drop a job of the boot (systemd.special(7)).
    """
    if NETWORK_OPTION not in options:
        return {}
    lines = ("[Unit]", f"Requires={gate_unit(name)}", f"After={gate_unit(name)}")
    return {unit: lines for unit in (fsck_unit, mount_unit) if unit}


def hold_unit(name: str) -> str:
    """The unit that holds the target of a configured replica."""
    return f"pydbt-hold@{name}.service"


def hold_wanted(name: str) -> DropIn:
    """Has the unit of a volume that is a replica now want the hold of its target, as the unit of a replica does by itself."""
    text = f"# Made at each boot by pydbt-generator: this side is a replica now.\n[Unit]\nWants={hold_unit(name)}\n"
    return DropIn(f"pydbt@{name}.service", "pydbt-hold.conf", text, "")


def needed_by_gate(volume: ArmedVolume, mounts: Sequence[PlannedMount]) -> list[PlannedMount]:
    """Mounts of the volume that would wait for its gate, which needs what is mounted there: they cannot have one."""
    needed = needed_by(volume, mounts)
    return [mount for mount in _gated(volume, mounts) if mount in needed]


def _gated(volume: ArmedVolume, mounts: Sequence[PlannedMount]) -> list[PlannedMount]:
    known = volume.names | {volume.source}
    return [mount for mount in mounts if mount.device and mount.device in known and NETWORK_OPTION in mount.options]


def gate_order(volume: ArmedVolume, mounts: Sequence[PlannedMount]) -> Iterator[DropIn]:
    """What makes each check and mount of a volume, by a line of ``fstab`` that waits for the network, wait for its gate.

    A check that another mount before the network requires as well cannot wait: that would be a circle.
    """
    circles, gated = needed_by_gate(volume, mounts), _gated(volume, mounts)
    early = {fsck_unit(mount.device) for mount in mounts if mount.device and mount.at_boot and mount not in gated}
    for mount in gated:
        if mount in circles:
            continue
        check = fsck_unit(mount.device)
        for unit, lines in gate_lines(volume.name, "" if check in early else check, mount.unit, mount.options).items():
            words = f"{unit} waits for {gate_unit(volume.name)}"
            yield DropIn(
                unit, "pydbt-gate.conf", "\n".join(("# Made at each boot by pydbt-generator.", *lines)) + "\n", words
            )


def why_not_gated(options: tuple[str, ...]) -> str:
    """What is wrong with the options of a line of ``fstab`` whose volume has a gate; empty when nothing is.

    ``noauto``: the line is of no boot, and mounted when everything is up; but not where whoever looks there mounts it.
    """
    if NETWORK_OPTION in options or ("noauto" in options and AUTOMOUNT not in options):
        return ""
    return (
        "expected _netdev among its options: the gate of this volume asks the other machine before the mount, and the network "
        "comes after the mounts without _netdev (or set no-gate = true in the volume's file)"
    )
