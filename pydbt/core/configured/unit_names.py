"""Names of systemd's units for devices and mount points, and the device that a line of ``fstab`` names.

The rules are those of systemd.unit(5), "String escaping for inclusion in unit names", and of its ``fstab`` generator
(``fstab_node_to_udev_node``, src/shared/fstab-util.c; ``encode_devnode_name``, src/shared/device-nodes.c). Texts may have bytes
that are not UTF-8, as surrogates.
"""

from __future__ import annotations

MAX_UNIT_NAME_BYTES = 255
"""A longer one is no unit (UNIT_NAME_MAX, src/basic/unit-name.h)."""
_ALPHANUMERIC = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PLAIN_IN_UNIT = frozenset(f"{_ALPHANUMERIC}:_.".encode())
_PLAIN_IN_LINK = frozenset(f"{_ALPHANUMERIC}#+-.:=@_")
# Those of systemd, and ``ID`` of mount(8), which mounts such a line for it.
_FOLDERS = {"LABEL": "label", "UUID": "uuid", "PARTUUID": "partuuid", "PARTLABEL": "partlabel", "ID": "id"}


def simplified(path: str) -> str:
    """A path without doubled slashes, ``.``, and a slash at its end. ``..`` stays: what it leads to is on the disk."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return ("/" if path.startswith("/") else "") + "/".join(parts)


def unit_of_path(path: str, kind: str) -> str:
    """The unit of an absolute path, as ``srv-data.mount``; empty when it has none: it is too long, or has ``..`` in it."""
    parts = simplified(path).split("/")
    name = f"{_escaped('/'.join(parts[1:]))}.{kind}" if parts[0] == "" and len(parts) > 1 else ""
    if path.startswith("/") and not any(parts):
        name = f"-.{kind}"
    return "" if ".." in parts or len(name) > MAX_UNIT_NAME_BYTES else name


def device_unit(path: str) -> str:
    """The unit that is active when a device is there."""
    return unit_of_path(path, "device")


def made_unit(path: str) -> str:
    """The target behind what makes a device of another one, which takes it away behind that (``blockdev@``, systemd.special(7)).

    ``systemd-cryptsetup@`` is one of these. Empty as for ``unit_of_path``.
    """
    name = f"blockdev@{unit_of_path(path, 'target')}"
    return "" if name.endswith("@") or len(name) > MAX_UNIT_NAME_BYTES else name


def fsck_unit(path: str) -> str:
    """The unit that checks the file system of a device before it is mounted; empty as for ``unit_of_path``."""
    name = f"systemd-fsck@{unit_of_path(path, 'service')}"
    return "" if name.endswith("@") or len(name) > MAX_UNIT_NAME_BYTES else name


def named_device(spec: str) -> str:
    """The path below ``/dev`` that the first field of a line of ``fstab``, or ``What=``, names; empty when it names no device."""
    tag, found, value = spec.partition("=")
    if found and tag in _FOLDERS:
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        return f"/dev/disk/by-{_FOLDERS[tag]}/{_as_link(value)}" if value else ""
    path = simplified(spec)
    return path if path.startswith("/dev/") else ""


def _escaped(text: str) -> str:
    return "".join(
        "-"
        if byte == ord("/")
        else chr(byte)
        if byte in _PLAIN_IN_UNIT and (position or byte != ord("."))
        else f"\\x{byte:02x}"
        for position, byte in enumerate(_raw(text))
    )


def _as_link(value: str) -> str:
    """As udev writes a label or an identifier into the name of a link."""
    return "".join(
        one if one in _PLAIN_IN_LINK or _is_character(ord(one)) else "".join(f"\\x{byte:02x}" for byte in _raw(one))
        for one in value
    )


def _is_character(code: int) -> bool:
    """Whether it is a character of more than one byte in UTF-8, and one that Unicode gives a meaning."""
    return code >= 0x80 and not 0xD800 <= code <= 0xDFFF and not 0xFDD0 <= code <= 0xFDEF and code & 0xFFFE != 0xFFFE


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
