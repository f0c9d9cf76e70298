"""Writes the rules that keep other programs off targets, and has them take effect.

Only what differs is written, each file whole or not at all. A rule is made only for the disk that a replica's record names; a
target that nothing can be told of is left alone, and keeps the rule that it has.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydbt.controller.belonging import belonging_of
from pydbt.core.configured.target_rules import (
    LVM_FILE,
    LVM_MAIN_FILE,
    RULES_FILE,
    TargetRule,
    known_targets,
    lvm_filter_of_others,
    lvm_patterns,
    lvm_rejects,
    udev_rules,
    with_lvm_block,
)
from pydbt.core.errors import PydbtError, StateError
from pydbt.core.secondary.belonging import Belonging
from pydbt.device.commands import COMMAND_PATH, CommandFailed, run_command
from pydbt.device.partitions import read_partitions_again
from pydbt.device.sysfs import BlockDevice
from pydbt.device.target import in_devices
from pydbt.device.target_names import all_names, others_hit, seen_devices, target_rule
from pydbt.posix.atomic import remove_file, replace_file
from pydbt.posix.held_device import end_hold

_UDEV_FOLDERS = ("etc/udev", "usr/lib/udev", "lib/udev")
_INITRAMFS_S = 600.0


@dataclass(frozen=True, slots=True)
class Replica:
    """A configured replica, as far as rules need it. ``by_file``: its file has a target; else its state may make it one."""

    name: str
    target: Path
    state_dir: Path
    by_file: bool = True


@dataclass
class Protection:
    """What was done: the targets that rules name, files that were changed or removed, and what could not be done."""

    rules: list[TargetRule] = field(default_factory=list)
    changed: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)
    """Targets whose rule is new, or is no more."""


def write_rules(replicas: Sequence[Replica], root: Path = Path("/")) -> Protection:
    """Write the rules for these targets, and no others, into the files below ``root``. StateError when one cannot be written."""
    done = Protection()
    known = known_targets(_text(root / RULES_FILE))
    devices = seen_devices() if replicas else []
    for replica in replicas:
        rule, is_its_disk = _rule_of(replica, known.get(replica.name), done.problems)
        if rule is None:
            continue
        if hit := others_hit(rule, replica.target if is_its_disk else None, devices):
            done.problems.append(
                f"{replica.name}: {rule.match.key} {rule.match.value} and its other names are also those of {', '.join(hit)}, "
                "which must not be hidden: there is no rule"
            )
            continue
        done.rules.append(rule)
    now = {rule.name: rule for rule in done.rules}
    done.devices = sorted(
        {
            one.path
            for rules, others in ((known, now), (now, known))
            for one in rules.values()
            if others.get(one.name) != one
        }
    )
    if any((root / folder).is_dir() for folder in _UDEV_FOLDERS):
        _put(root / RULES_FILE, udev_rules(done.rules), done)
    if (root / LVM_FILE).parent.is_dir():
        _filter_lvm(root, done)
    return done


def take_effect(done: Protection) -> None:
    """Have udev read changed rules, and look at the devices again that they are about. Nothing is raised."""
    if not done.changed or shutil.which("udevadm", path=COMMAND_PATH) is None:
        return
    devices = [path for path in done.devices if os.path.exists(path)]
    try:
        run_command("udevadm", "control", "--reload")
        for path in devices:
            run_command("udevadm", "trigger", "--action=change", *_with_partitions(path))
    except CommandFailed as error:
        done.problems.append(f"udev goes by the new rules only after a boot: {error}")


def renew_initramfs(done: Protection) -> str:
    """Put changed files into the initial RAM disk too; what was done, or is to be done, in words. Takes up to a minute."""
    if not done.changed:
        return ""
    if shutil.which("update-initramfs", path=COMMAND_PATH) is None:
        return "the initial RAM disk is to be made anew, with these files, by this machine's own program for it"
    try:
        run_command("update-initramfs", "-u", patience_s=_INITRAMFS_S)
    except CommandFailed as error:
        done.problems.append(f"the initial RAM disk has the rules of before: {error}")
        return ""
    return "the initial RAM disk was made anew"


def release_target(target: Path) -> None:
    """End the hold of a target that is a replica no more, and let the kernel see its partitions. Nothing is raised."""
    with contextlib.suppress(OSError):
        end_hold(os.stat(target).st_rdev)
    with contextlib.suppress(PydbtError):
        if not BlockDevice.identify(target).is_partition:
            read_partitions_again(target)


def _rule_of(replica: Replica, known: TargetRule | None, problems: list[str]) -> tuple[TargetRule | None, bool]:
    """The rule of one target, if it has one, and whether the disk at its path may be the target."""
    if replica.target.is_file() or not (replica.target.exists() or in_devices(str(replica.target))):
        return None, False  # an image file, which nothing takes
    kept = known if known is not None and known.path == os.path.abspath(replica.target) else None
    try:
        found = belonging_of(replica.target, replica.state_dir)
        if found is Belonging.VOLUME:
            return None, True
        if found is not Belonging.REPLICA:
            kept = known if found is Belonging.OTHER_DISK else kept
            if replica.by_file or kept is not None:
                words = "the rule that is there stays" if kept is not None else "no rule is made for it"
                why = found.words(str(replica.target), str(replica.state_dir))
                problems.append(f"{replica.name}: {why}: {words}")
            return kept, found is not Belonging.OTHER_DISK
        rule = target_rule(replica.name, replica.target)
        if used := _user_of(replica.target):
            # One that was taken at this boot, or is looked at for a while, keeps the rule that it has, for the next.
            words = "it is in use despite its rule" if known is not None else f"no rule is made for {replica.target}"
            problems.append(f"{replica.name}: {words}: {used}")
            return known, True
    except StateError as error:
        words = "the rule that is there stays" if kept is not None else "no rule is made"
        problems.append(f"{replica.name}: {words}: {error}")
        return kept, True
    except PydbtError as error:
        if kept is not None:
            return kept, True  # its disk is away
        problems.append(f"{replica.name}: no rule can be made: {error}")
        return None, True
    if not rule.match.lasting:
        problems.append(
            f"{replica.name}: {replica.target} has no lasting name: its rule goes by the kernel's name, which another disk may "
            "have after a boot"
        )
    return rule, True


def _user_of(target: Path) -> str:
    """Who uses a device in a way that a rule would disturb: systemd unmounts what lies on a device that is not ready."""
    device = BlockDevice.identify(target)
    for part in (device, *device.partitions()):
        if mounts := part.mounts():
            return f"{part.path} is mounted at {mounts[0].point}; unmount it first"
        if part.is_swap():
            return f"{part.path} is swap; run swapoff first"
        if holders := part.holders():
            return f"{part.path} is held by {', '.join(holders)}; release it first"
    return ""


def _filter_lvm(root: Path, done: Protection) -> None:
    path = root / LVM_FILE
    text = _text(path)
    others = lvm_filter_of_others(_text(root / LVM_MAIN_FILE), text)
    for rule in done.rules:
        if others is None and not lvm_patterns([rule]):
            done.problems.append(
                f"{rule.name}: {rule.path} has no lasting name below /dev by which LVM could be kept off it"
            )
    if others is None:
        _put(path, with_lvm_block(text, lvm_patterns(done.rules)), done)
        return
    _put(path, with_lvm_block(text, []), done)  # there is one filter: theirs counts
    for rule in done.rules:
        names = all_names(rule.path) if os.path.exists(rule.path) else [rule.path, *rule.links]
        if not lvm_rejects(others, names):
            done.problems.append(
                f"{rule.name}: the global_filter of /etc/lvm lets LVM take {rule.path}: put {', '.join(lvm_patterns([rule]))} "
                "at its beginning, and let nothing accept another name of it"
            )


def _put(path: Path, text: str, done: Protection) -> None:
    path = Path(os.path.realpath(path))
    if _text(path) == text:
        return
    if not text:
        remove_file(path)
    else:
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, text.encode("utf-8", "surrogateescape"))
            path.chmod(mode)
        except OSError as error:
            raise StateError(f"{path} cannot be written: {error.strerror}") from None
    done.changed.append(path)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}") from None


def _with_partitions(path: str) -> list[str]:
    try:
        device = BlockDevice.identify(path)
        return [path, *(part.path for part in device.partitions())]
    except PydbtError:
        return [path]
