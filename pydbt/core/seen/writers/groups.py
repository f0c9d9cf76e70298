"""The unit of systemd or the container behind the path of a control group, by the names that these give.

Sources: systemd's documentation of control groups (CGROUP_DELEGATION.md) and systemd-escape(1); the names of scopes of Docker,
Podman (libpod), containerd and CRI-O under the kubelet; lxc.payload of LXC; machine-NAME.scope of systemd-nspawn and libvirt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_UNIT = re.compile(r".+\.(?:service|scope|mount|swap|socket)")
_HEX_NAME = r"(?P<id>[0-9a-f]{64})"
# What begins the name of a container's scope, or is the folder that it lies in, and what it is called.
_SCOPES = {
    "docker": "Docker",
    "libpod": "Podman",
    "cri-containerd": "containerd",
    "crio": "CRI-O",
    "nerdctl": "containerd",
}
_SCOPE = re.compile(rf"(?P<kind>{'|'.join(_SCOPES)})-{_HEX_NAME}\.scope")
_HEX_FOLDER = re.compile(_HEX_NAME)
_MACHINE = re.compile(r"machine-(?P<name>.+)\.scope")
_LXC = re.compile(r"lxc\.payload\.(?P<name>.+)")
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
_SHORT_ID = 12  # digits, as `docker ps` shows them


@dataclass(frozen=True, slots=True)
class Group:
    """``label``: what people call it. ``unit``: of systemd, or empty; ``container``: its name or short id, or empty."""

    label: str
    unit: str
    container: str


def control_group_of(path: str) -> Group:
    """``path``: from the root of the control groups, ``/`` for the root itself."""
    parts = [part for part in path.split("/") if part]
    container = next(filter(None, (_container(parts, at) for at in reversed(range(len(parts))))), "")
    unit = next((part for part in reversed(parts) if _UNIT.fullmatch(part)), "")
    user = next((part for part in parts if part.startswith("user@") and part != unit), "")
    shown = _unescaped(unit)
    if container:
        return Group(container, shown, container)
    if unit:
        return Group(f"{shown} of {_unescaped(user)}" if user else shown, shown, "")
    return Group(path or "/", "", "")


def _container(parts: list[str], at: int) -> str:
    part, above = parts[at], parts[at - 1] if at else ""
    if scope := _SCOPE.fullmatch(part):
        return f"{_SCOPES[scope['kind']]} {scope['id'][:_SHORT_ID]}"
    if _HEX_FOLDER.fullmatch(part) and (above in _SCOPES or above.startswith(("pod", "kubepods"))):
        return f"{_SCOPES.get(above, 'container')} {part[:_SHORT_ID]}"
    if machine := _MACHINE.fullmatch(part):
        return f"machine {_unescaped(machine['name'])}"
    if lxc := _LXC.fullmatch(part):
        return f"LXC {lxc['name']}"
    return f"LXC {part}" if above == "lxc" else ""


def _unescaped(name: str) -> str:
    """Without systemd's own escapes, where these stand for printable characters."""

    def character(match: re.Match[str]) -> str:
        code = int(match[1], 16)
        return chr(code) if 0x20 <= code < 0x7F else match[0]

    return _ESCAPED.sub(character, name)
