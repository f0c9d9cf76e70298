"""Compiled code that is kept, so that a kernel that was seen before needs no compiler.

The code depends on the programs' text, on the macros (which say all that it takes from the kernel's types), on the kernel's
release (bcc looks at it) and on the compiler. The first three make a file's name. The compiler's files are told inside: where one
of them has changed, the code is compiled anew; where no compiler is installed any more, what is kept is used.

A file is used only when nobody but root or this user can have written it, and when its checksum is right.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pydbt.core.errors import StateError
from pydbt.kernel.code import Code
from pydbt.kernel.layout import Macros
from pydbt.posix.atomic import replace_file
from pydbt.posix.ownership import Unsafe, file_intruder, make_folder, read_safely

FOLDER = Path("/var/cache/pydbt")
"""Regenerable, hence in /var/cache (FHS 5.5): it may be removed at any time."""
KEPT_FILES = 64
"""As many are kept: all builds for the last kernels and versions."""
_NAME_DIGITS = 16
_COMPILER = re.compile(r"/lib(?:bcc|LLVM|clang)[^/]*$")
_MAPS_OF_SELF = Path("/proc/self/maps")


class Kernel(NamedTuple):
    """As uname(2) names it."""

    release: str
    version: str
    machine: str


CompilerFile = tuple[str, int, int]
"""Path, size in bytes, and time of the last change in nanoseconds."""


def code_for(text: str, macros: Macros, compile_it: Callable[[], Code], folder: Path) -> Code:
    """The kept code for this text and these macros on the running kernel; else ``compile_it()``, which is then kept.

    That it cannot be kept is no error: the next start compiles again.
    """
    path = _place(running_kernel(), text, macros, folder)
    if code := _take(path):
        return code
    code = compile_it()
    with contextlib.suppress(Unsafe, OSError, StateError):
        keep(path, code)
    return code


def missing_place(kernel: Kernel, text: str, macros: Macros, folder: Path) -> Path | None:
    """Where the code for that kernel is to be kept; None where it is kept already."""
    path = _place(kernel, text, macros, folder)
    return None if _take(path) else path


def keep(path: Path, code: Code) -> None:
    """Keep what this process has compiled. Unsafe, OSError or StateError when that cannot be done."""
    make_folder(path.parent)
    _keep(path, code, compiler_files())
    _drop_oldest(path.parent)


def running_kernel() -> Kernel:
    kernel = os.uname()
    return Kernel(kernel.release, kernel.version, kernel.machine)


def is_known(text: str, folder: Path) -> bool:
    """Whether code of this text is kept for the running kernel: the compiler is most likely not needed."""
    return any(_take(path) for path in folder.glob(f"{_group(running_kernel(), text)}-*.json"))


def compiler_files(maps: Path = _MAPS_OF_SELF) -> list[CompilerFile]:
    """The compiler's libraries that this process has loaded."""
    lines = os.fsdecode(maps.read_bytes()).splitlines()
    paths = {fields[5] for line in lines if len(fields := line.split(None, 5)) == 6}
    files = []
    for path in sorted(path for path in paths if _COMPILER.search(path)):
        with contextlib.suppress(OSError):
            status = os.stat(path)
            files.append((path, status.st_size, status.st_mtime_ns))
    return files


def _place(kernel: Kernel, text: str, macros: Macros, folder: Path) -> Path:
    return folder / f"{_group(kernel, text)}-{_digest(json.dumps(sorted(macros.items())))}.json"


def _group(kernel: Kernel, text: str) -> str:
    return _digest("\n".join((*kernel, text)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_NAME_DIGITS]


def _take(path: Path) -> Code | None:
    """None for a file that is absent, unsafe, damaged, or made by a compiler that has changed since."""
    try:
        text, status = read_safely(path)
        checksum, _, content = text.partition("\n")
        if file_intruder(path, status) or checksum != hashlib.sha256(content.encode()).hexdigest():
            return None
        fields = json.loads(content)
        if not all(_unchanged(*file) for file in fields["compiler"]):
            return None
        return Code.from_json(fields["code"])
    except (OSError, Unsafe, ValueError, TypeError, KeyError):
        return None


def _unchanged(path: str, size_bytes: int, changed_ns: int) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return importlib.util.find_spec("bcc") is None  # another version may lie elsewhere
    return (status.st_size, status.st_mtime_ns) == (size_bytes, changed_ns)


def _keep(path: Path, code: Code, compiler: list[CompilerFile]) -> None:
    content = json.dumps({"compiler": compiler, "code": code.to_json()})
    checksum = hashlib.sha256(content.encode()).hexdigest()
    replace_file(path, f"{checksum}\n{content}".encode(), durable=False)


def _drop_oldest(folder: Path) -> None:
    ages: dict[Path, int] = {}
    for path in folder.glob("*.json"):
        with contextlib.suppress(FileNotFoundError):  # another one drops the oldest, too
            ages[path] = path.stat().st_mtime_ns
    for path in sorted(ages, key=ages.__getitem__)[:-KEPT_FILES]:
        path.unlink(missing_ok=True)
