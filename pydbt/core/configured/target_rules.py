"""What keeps other programs off the targets of replicas: the texts of udev's rules and of LVM's filter.

A target carries what its SOURCE carries: the same file system UUID, and the marks of LVM, md and btrfs. So a target is named by
what the disk itself is (``Match``), and never by its content.

Sources: the rules of udev, lvm2, mdadm and btrfs-progs in Debian 12 and 13, udev(7), lvm.conf(5).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

RULES_FILE = "etc/udev/rules.d/62-pydbt-targets.rules"
"""Behind 60-persistent-storage*.rules, which look at the content, and before those that take it: 64-btrfs.rules,
64-md-raid-assembly.rules, 69-lvm.rules, 80-udisks2.rules, 99-systemd.rules. Debian's hook of udev has it in the initramfs."""

# In the order of trust: the kind in `BlockDevice.identity()`, and udev's key. ATTRS also looks at the devices above the disk.
_KEYS = {
    "dm_uuid": "ATTR{dm/uuid}",
    "md_uuid": "ATTR{md/uuid}",
    "backing_file": "ATTR{loop/backing_file}",
    "wwid": "ATTRS{wwid}",
    "serial": "ATTRS{serial}",
    "slot": "KERNELS",
}
# Links that say what a device carries, and not which one it is; and one that is another after each boot.
_NOT_LASTING = ("disk/by-uuid/", "disk/by-label/", "disk/by-diskseq/", "disk/by-loop-", "disk/by-id/lvm-pv-uuid-")
# An administrator attaches them, and chooses or sees the number.
_NUMBERED_BY_HAND = ("nbd", "rbd", "drbd", "zram")
# Anything else may have a meaning to udev: '|' separates alternatives, '*', '?' and '[' are wildcards, '"' ends the text.
_UNSAFE = re.compile(r"[^A-Za-z0-9 ._:+=@/,-]", re.ASCII)
_SAFE_IN_REGEX = re.compile(r"[^A-Za-z0-9 _:@/,=-]", re.ASCII)

_TOLD = "# target "
# Rules of others that follow ask for these. What is emptied is found anew by each event, so nothing of it stays behind.
_FOR_EACH = """
# What lies on the target, as its partitions do, is the replica's too.
ENV{DEVTYPE}=="partition", ENV{PYDBT_TARGET}=="", IMPORT{parent}="PYDBT_TARGET"
ENV{PYDBT_TARGET}!="?*", GOTO="pydbt_targets_end"

# systemd: no mount, swap or unlocking begins, and no unit waits for the device. Also read by the rules of md and btrfs.
ENV{SYSTEMD_READY}="0"
# LVM, md, btrfs and udisks go by what the device carries.
ENV{ID_FS_TYPE}="", ENV{ID_FS_USAGE}="", ENV{ID_FS_UUID}="", ENV{ID_FS_UUID_ENC}="", ENV{ID_FS_LABEL}="", ENV{ID_FS_LABEL_ENC}=""
ENV{ID_PART_GPT_AUTO_ROOT}=""
ENV{UDISKS_IGNORE}="1", ENV{UDISKS_AUTO}="0"
# Where SOURCE is on this machine too, links by UUID and label lead to SOURCE. A write here is no reason to look at it again.
OPTIONS+="link_priority=-100"
OPTIONS+="nowatch"

LABEL="pydbt_targets_end"
"""

LVM_FILE = "etc/lvm/lvmlocal.conf"
LVM_MAIN_FILE = "etc/lvm/lvm.conf"
_LVM_BEGIN = "# Begin of the targets of pydbt: 'controller protect' writes these lines anew, and removes them."
_LVM_END = "# End of the targets of pydbt."
_LVM_BLOCK = re.compile(rf"\n?{re.escape(_LVM_BEGIN)}\n.*?{re.escape(_LVM_END)}\n", re.DOTALL)
# One text, or a list of texts, each of which may have a ']' in it.
_FILTER = re.compile(r"(?:devices/)?global_filter\s*=\s*(\[(?:[^\]\"]|\"(?:[^\"\\]|\\.)*\")*\]|\"(?:[^\"\\]|\\.)*\")")
_QUOTED = re.compile(r"\"((?:[^\"\\]|\\.)*)\"")


@dataclass(frozen=True, slots=True)
class Match:
    """How udev knows a disk: by ``key``, which has ``value``; ``partition``: a part of it, by its number.

    ``lasting`` False: by the kernel's own name, which may be another disk's after a boot.
    """

    key: str
    value: str
    partition: int | None = None
    lasting: bool = True


@dataclass(frozen=True, slots=True)
class TargetRule:
    """The target of the replica ``name``. ``links``: its lasting names below ``/dev``."""

    name: str
    path: str
    match: Match
    links: tuple[str, ...] = ()


def match_of(identity: Mapping[str, str], *, mapper_name: str, kernel_name: str, link: str) -> Match | None:
    """How udev is to know a device: by the best of its lasting names, or by the link that the configuration names.

    None: only the kernel's name is known, which after a boot another disk may have, perhaps the one that the machine boots from.

    ``identity``: by kind, as ``BlockDevice.identity()`` has it; ``link``: the configured path relative to ``/dev``, empty if it
    is no link.
    """
    partition = int(identity["partition"]) if "partition" in identity else None
    for kind, key in _KEYS.items():
        if kind in identity:
            return Match(key, identity[kind], partition)
    if mapper_name:
        return Match("ATTR{dm/name}", mapper_name)
    if link and is_lasting_link(link):
        return Match("SYMLINK", link)
    return Match("KERNEL", kernel_name, lasting=False) if kernel_name.startswith(_NUMBERED_BY_HAND) else None


def is_lasting_link(link: str) -> bool:
    """Whether a name relative to ``/dev`` says which device it is, and not what the device carries."""
    return not link.startswith(_NOT_LASTING)


def udev_rules(targets: Sequence[TargetRule]) -> str:
    """The file of rules; empty when there is no target, so that the file is removed."""
    if not targets:
        return ""
    lines = [
        "# Keeps other programs off the targets of replicas. Made by 'controller protect', which writes it anew: do not edit it.",
        "# They lie on disks that carry the marks of another machine's volume (/usr/share/doc/pydbt/docs/operating/targets.md).",
        'SUBSYSTEM!="block", GOTO="pydbt_targets_end"',
        'ACTION=="remove", GOTO="pydbt_targets_end"',
        "",
    ]
    for target in targets:
        lines.append(_TOLD + json.dumps(asdict(target), sort_keys=True))
        lines.append(f'{_condition(target.match)}, ENV{{PYDBT_TARGET}}="{pattern_of(target.name)}"')
        if (
            target.match.key == "ATTR{dm/uuid}"
        ):  # partitions of a multipath device, which kpartx maps: devices of their own
            parts = f'ATTR{{dm/uuid}}=="part[0-9]*-{pattern_of(target.match.value)}"'
            lines.append(f'{parts}, ENV{{PYDBT_TARGET}}="{pattern_of(target.name)}"')
    return "\n".join(lines) + "\n" + _FOR_EACH


def known_targets(text: str) -> dict[str, TargetRule]:
    """The targets that a file of rules was made for, by replica; those that it does not tell rightly are left out."""
    found = {}
    for line in text.splitlines():
        if not line.startswith(_TOLD):
            continue
        try:
            values = json.loads(line.removeprefix(_TOLD))
            rule = TargetRule(
                str(values["name"]), str(values["path"]), Match(**values["match"]), tuple(map(str, values["links"]))
            )
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        found[rule.name] = rule
    return found


def lvm_patterns(targets: Iterable[TargetRule]) -> list[str]:
    """What LVM must not open, as elements of ``global_filter``.

    Each names a device with its partitions; another name of the same device needs none, unless a filter accepts it. A name by
    the port (``by-path``) is another disk's when the disks are put in otherwise: it counts only for one that is known by no more.
    """
    found = []
    for target in targets:
        by_port = target.match.key == "KERNELS" or target.match.value.startswith("disk/by-path/")
        names = [name for name in target.links if by_port or not name.startswith("/dev/disk/by-path/")]
        if not target.match.lasting:
            names = names or [f"/dev/{target.match.value}"]
        for name in names:
            part = "" if target.match.partition is not None else f"({_part_of(name)}[0-9]+)?"
            found.append(f"r|^{_SAFE_IN_REGEX.sub('.', name)}{part}$|")
    return sorted(set(found))


def with_lvm_block(text: str, patterns: Sequence[str]) -> str:
    """The text of ``lvmlocal.conf`` with these patterns in lines between two marks; without the lines when there are none."""
    rest = _LVM_BLOCK.sub("", text)
    if not patterns:
        return rest
    elements = ", ".join(f'"{pattern}"' for pattern in patterns)
    lead = "" if not rest or rest.endswith("\n") else "\n"
    return f"{rest}{lead}\n{_LVM_BEGIN}\ndevices {{\n\tglobal_filter = [ {elements} ]\n}}\n{_LVM_END}\n"


def lvm_filter_of_others(*texts: str) -> tuple[str, ...] | None:
    """The elements of a ``global_filter`` that somebody else set, in the last of these files that has one; None: none does."""
    found: tuple[str, ...] | None = None
    for text in texts:
        lines = [line for line in _LVM_BLOCK.sub("", text).splitlines() if not line.lstrip().startswith("#")]
        for match in _FILTER.finditer("\n".join(lines)):
            found = tuple(element for element in _QUOTED.findall(match[1]))
    return found


def lvm_rejects(elements: Sequence[str], names: Iterable[str]) -> bool:
    """Whether a filter keeps LVM off a device with these names: one is rejected first, and none is accepted (lvm.conf(5))."""
    verdicts = [verdict for name in names if (verdict := _first_verdict(elements, name))]
    return "a" not in verdicts and "r" in verdicts


def _part_of(name: str) -> str:
    """What stands between a disk's name and the number of its partition."""
    if name.startswith(("/dev/disk/", "/dev/mapper/")):
        return "-part"
    return "p" if name[-1].isdigit() else ""


def _first_verdict(elements: Sequence[str], name: str) -> str:
    for element in elements:
        kind, delimiter, body = element[:1], element[1:2], element[2:]
        if kind not in ("a", "r") or not delimiter:
            continue
        closing = {"(": ")", "[": "]", "{": "}"}.get(delimiter, delimiter)
        try:
            if re.search(body.removesuffix(closing), name):
                return kind
        except re.error:
            continue  # LVM refuses such a filter itself
    return ""


def _condition(match: Match) -> str:
    if match.partition is not None:
        key = match.key if match.key == "KERNELS" else match.key.replace("ATTR{", "ATTRS{")
        return (
            f'ENV{{DEVTYPE}}=="partition", ATTR{{partition}}=="{match.partition}", {key}=="{pattern_of(match.value)}"'
        )
    whole = "" if match.key in ("SYMLINK", "KERNEL") else 'ENV{DEVTYPE}=="disk", '
    return f'{whole}{match.key}=="{pattern_of(match.value)}"'


def pattern_of(value: str) -> str:
    """A text as udev matches it: a character that has a meaning there becomes ``?``, which is any one character."""
    return _UNSAFE.sub("?", value)
