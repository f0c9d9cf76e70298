"""What the next boot needs to know of a volume, and why the last one did not arm it before its mount."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from pydbt.controller.boot_files import (
    armed_volume,
    at_their_goals,
    mounts_at_boot,
    names_file,
    read_short,
    units_behind,
)
from pydbt.controller.units import is_enabled, is_masked
from pydbt.core.configured.boot_order import arm_unit, names_text, unordered
from pydbt.core.errors import PydbtError
from pydbt.device.names import device_names
from pydbt.device.sysfs import BlockDevice
from pydbt.posix.atomic import replace_file

_log = logging.getLogger("pydbt")
# There while systemd runs the machine (sd_booted(3)).
_SYSTEMD = "run/systemd/system"


def keep_names(volume_file: Path | None, source: Path, device: BlockDevice | None = None) -> None:
    """Write down the names of a configured volume's device, for the order of the next boot. It never fails: it may be read only.

    Only root writes, and only what has changed. ``volume_file`` None: the volume is not configured.
    """
    if volume_file is None or os.geteuid() != 0:
        return
    file = names_file(volume_file)
    try:
        text = names_text(str(source), device_names(device or BlockDevice.identify(source)))
        if text and read_short(file) != text:
            replace_file(file, text.encode("utf-8", "surrogateescape"))
    except (PydbtError, OSError) as error:
        _log.debug("the names of %s are not kept for the next boot: %s", source, error)


def why_unarmed(
    volume_file: Path | None, source: Path, device: BlockDevice, state_dir: Path, root: Path = Path("/")
) -> str:
    """Why this boot did not arm a volume before its mount, as far as files tell; empty when they do not.

    One clause for a person. Without systemd, and for a volume that is not configured, nothing is known.
    """
    if volume_file is None or not (root / _SYSTEMD).is_dir():
        return ""
    unit = arm_unit(volume_file.stem)
    if is_masked(unit, root):
        return f"{unit} is masked"
    if not is_enabled(unit, root):
        return f"{unit} is not enabled"
    behind = units_behind(unit, root)
    if behind is None:
        return f"no generator has ordered {unit} before a mount: pydbt-generator is missing, or says why in the kernel's log"
    try:
        volume = armed_volume(volume_file, str(source), str(state_dir))
    except OSError:
        return ""
    known_now = volume._replace(names=volume.names | device_names(device))
    return unordered(known_now, at_their_goals(mounts_at_boot(root), known_now, root), behind)
