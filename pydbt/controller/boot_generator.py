"""Orders the boot for the configured volumes: a generator of systemd (systemd.generator(7)).

It runs before udev and before any mount but that of the root, and again at each ``systemctl daemon-reload``. It must be quick
and must not fail: a volume or a line that cannot be read is told in the kernel's log, and every other one is ordered all the
same. Drop-ins go into the folder that systemd hands it, and nothing is written anywhere else.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydbt.controller.boot_files import armed_volume, at_their_goals, mounts_at_boot, read_short
from pydbt.controller.units import is_enabled
from pydbt.core.configured.boot_order import DropIn, arm_unit, arming_order, state_mounts
from pydbt.core.configured.fstab import PlannedMount
from pydbt.core.configured.gate_units import gate_order, gate_unit, hold_unit, hold_wanted, needed_by_gate
from pydbt.core.configured.problems import why_no_name

VOLUME_FILES = "etc/pydbt/volumes"
STATES_FOLDER = "/var/lib/pydbt"
TARGET_RULES = "etc/udev/rules.d/62-pydbt-targets.rules"
"""As in ``target_rules``."""
_TABLES = (("run", "source"), ("secondary", "target"))
NETWORK_DISKS = ("fcoe.service", "iscsi.service", "iscsid.service", "open-iscsi.service", "rbdmap.service")
_WARNING, _INFO = 4, 6  # of the kernel's log (syslog(2))


def main(arguments: Sequence[str], root: Path = Path("/"), log: str = "/dev/kmsg") -> int:
    """The exit code: 0 also when something could not be ordered. ``arguments``: systemd's folder for drop-ins, and two more."""
    if not arguments or not os.path.isdir(arguments[0]):
        _tell(log, _WARNING, "expected a folder for drop-ins as the first argument: systemd starts this")
        return 2
    try:
        _generate(Path(arguments[0]), root, log)
    except Exception as error:  # whatever it is, the machine boots: the volume is compared then
        _tell(log, _WARNING, f"not every volume was ordered before its mount: {error!r}")
    return 0


def _generate(folder: Path, root: Path, log: str) -> None:
    paths = _configured(root)
    if not paths:
        return
    faults: list[str] = []
    mounts, keepers = mounts_at_boot(root, faults), _device_keepers(root)
    for fault in faults:
        _tell(log, _WARNING, fault)
    for path in paths:
        try:
            for drop_in in _drop_ins(path, mounts, keepers, root, log):
                _write(folder, drop_in)
                if drop_in.words:
                    _tell(log, _INFO, drop_in.words)
        except Exception as error:  # of one volume, and no other's
            _tell(log, _WARNING, f"{path}: its volume is not ordered before its mount: {error}")


def _configured(root: Path) -> list[Path]:
    """The files of the configured volumes and replicas."""
    try:
        names = sorted(os.listdir(root / VOLUME_FILES))
    except OSError:
        return []
    found = []
    for file in names:
        name = file.removesuffix(".toml")
        if file != name and not why_no_name(name):
            found.append(root / VOLUME_FILES / file)
    return found


def _drop_ins(
    path: Path, mounts: Sequence[PlannedMount], keepers: Sequence[str], root: Path, log: str
) -> Iterator[DropIn]:
    """Everything that the file of a volume asks of this machine's mounts. OSError and ValueError for one that cannot be read."""
    text = (read_short(path) or "").encode("utf-8", "surrogateescape").decode()  # TOML has no other bytes
    tables: Any = tomllib.loads(text)
    found = [one for one in ((tables.get(role), key) for role, key in _TABLES) if isinstance(one[0], dict)]
    if not found:
        return
    # Of two tables the one with the device is that of the role in which this side began.
    table, place = next((one for one in found if one[1] in one[0]), found[0])
    device, state = table.get(place), table.get("state") or f"{STATES_FOLDER}/{path.stem}"
    if not isinstance(device, str) or not isinstance(state, str):
        raise ValueError(f"expected a text for {place} and state")
    volume = armed_volume(path, device, state)
    # Both read the state, also early in the boot. The roles of both sides may change, and the file stays.
    for unit in (gate_unit(volume.name), hold_unit(volume.name)):
        if drop_in := state_mounts(unit, volume):
            yield drop_in
    # So these are ordered for either role: the state cannot be read yet, and tells the arming and the gate the role later.
    mounts = at_their_goals(mounts, volume, root)
    is_hidden = volume.name in _hidden(root)
    if is_hidden and place == "source":
        yield hold_wanted(volume.name)
    if is_enabled(arm_unit(volume.name), root):
        yield arming_order(volume, mounts, keepers, is_hidden=is_hidden)
    run = tables.get("run")
    if not isinstance(run, dict) or run.get("no-gate") is not True:
        for mount in needed_by_gate(volume, mounts):
            _tell(
                log,
                _WARNING,
                f"{mount.where} does not wait for the gate of {volume.name}, which needs what is mounted there",
            )
        yield from gate_order(volume, mounts)


def _hidden(root: Path) -> frozenset[str]:
    """The sides whose device is hidden from systemd, because they are replicas: who waited for its unit would wait in vain."""
    try:
        text = read_short(root / TARGET_RULES)
    except OSError:
        return frozenset()
    if not text:
        return frozenset()
    from pydbt.core.configured.target_rules import known_targets  # few machines have such a file, and it brings more

    return frozenset(known_targets(text))


def _device_keepers(root: Path) -> tuple[str, ...]:
    """What deactivates LVM and device-mapper at the shutdown (lvm2's ``blk-availability.service``).

    Where it comes after disks of the network, an arming behind it and before local mounts would be a circle.
    """
    return () if any(is_enabled(unit, root) for unit in NETWORK_DISKS) else ("blk-availability.service",)


def _write(folder: Path, drop_in: DropIn) -> None:
    place = folder / f"{drop_in.unit}.d"
    place.mkdir(mode=0o755, exist_ok=True)
    # The folder is in memory, and systemd reads it when this has ended.
    (place / drop_in.file).write_bytes(drop_in.text.encode("utf-8", "surrogateescape"))


def _tell(log: str, priority: int, words: str) -> None:
    """One line of the kernel's log, which is there before any other; of the standard error where that may not be written."""
    line = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in words)[:800]
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            os.write(descriptor, f"<{priority}>pydbt-generator: {line}\n".encode())
        finally:
            os.close(descriptor)
    except OSError:
        os.write(2, f"pydbt-generator: {line}\n".encode())
