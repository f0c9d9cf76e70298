"""What systemd is to be told so that a volume's file system is neither checked nor mounted before its gate is open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydbt.core.configured.boot_order import ArmedVolume, DropIn
from pydbt.core.configured.fstab import PlannedMount
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


def gate_order(volume: ArmedVolume, mounts: Sequence[PlannedMount]) -> Iterator[DropIn]:
    """What makes each check and mount of a volume, by a line of ``fstab`` that waits for the network, wait for its gate."""
    for mount in mounts:
        if not mount.device or mount.device not in volume.names | {volume.source}:
            continue
        for unit, lines in gate_lines(volume.name, fsck_unit(mount.device), mount.unit, mount.options).items():
            words = f"{unit} waits for {gate_unit(volume.name)}"
            yield DropIn(
                unit, "pydbt-gate.conf", "\n".join(("# Made at each boot by pydbt-generator.", *lines)) + "\n", words
            )


def why_not_gated(options: tuple[str, ...]) -> str:
    """What is wrong with the options of a line of ``fstab`` whose volume has a gate; empty when nothing is.

    ``noauto``: the line is of no boot, and mounted when everything is up.
    """
    if NETWORK_OPTION in options or "noauto" in options:
        return ""
    return (
        "expected _netdev among its options: the gate of this volume asks the other machine before the mount, and the network "
        "comes after the mounts without _netdev (or set no-gate = true in the volume's file)"
    )
