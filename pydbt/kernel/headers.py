"""Kernel headers for bcc's compiler. Those of any kernel serve, since every layout comes from BTF.

bcc's own prelude includes a few kernel headers. Those of the running kernel are preferred; otherwise any installed set is
used, because the programs do not depend on the structs that headers describe.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from pydbt.core.errors import MachineError

_SOURCES = Path("/usr/src")
_MODULES = Path("/lib/modules")
_ARCHITECTURES = {"x86_64": ("amd64", "x86"), "aarch64": ("arm64", "arm64")}
# Some folders hold only the headers that modules need; bcc cannot compile with these. A usable folder has this file.
_PROOF = Path("include/linux/kconfig.h")


@dataclass(frozen=True, slots=True)
class Headers:
    """``source`` goes into bcc's environment, ``flags`` to its compiler. Both are empty when bcc finds the headers itself."""

    source: str
    flags: tuple[str, ...]


def find_headers(release: str | None = None, modules: Path = _MODULES, sources: Path = _SOURCES) -> Headers:
    """The best headers that are installed. MachineError names the package when there are none."""
    release = release or os.uname().release
    if (modules / release / "build" / _PROOF).exists() or (modules / release / "source" / _PROOF).exists():
        return Headers("", ())
    machine = platform.machine()
    debian, directory = _ARCHITECTURES.get(machine, (machine, machine))
    for folder in sorted(sources.glob("linux-headers-*"), key=_newest_first):
        if headers := _of_folder(folder, directory):
            return headers
    raise MachineError(
        f"no kernel headers are installed for compiling the capture programs: install linux-headers-{debian} "
        "(Debian) or linux-headers-generic (Ubuntu); they need not match the running kernel"
    )


def _newest_first(folder: Path) -> tuple[int, ...]:
    return tuple(-int(number) for number in re.findall(r"\d+", folder.name))


def _of_folder(folder: Path, directory: str) -> Headers | None:
    """Debian keeps a flavour apart from the common part; Ubuntu links a flavour to a full tree."""
    generated = folder / "arch" / directory / "include" / "generated"
    if not (generated.exists() and (folder / "include" / "generated").exists()):
        return None
    if (folder / _PROOF).exists():
        return Headers(str(folder), _generated_flags(folder, generated))
    common = re.sub(r"-(?:rt-|cloud-)?[a-z0-9]+$", "", str(folder))
    for suffix in ("-common-rt", "-common") if "-rt-" in folder.name else ("-common",):
        if (Path(common + suffix) / _PROOF).exists():
            return Headers(common + suffix, _generated_flags(folder, generated))
    return None


def _generated_flags(folder: Path, generated: Path) -> tuple[str, ...]:
    include = folder / "include"
    return (
        f"-I{include}",
        f"-I{generated}",
        f"-I{generated / 'uapi'}",
        f"-I{include / 'generated' / 'uapi'}",
    )
