"""The programs' code, as bcc compiles it. The only importer of bcc.

bcc is asked for code alone: it knows neither typed programs nor calls between functions (pydbt/kernel/loaded.py), and it makes
maps of its own, of the smallest size, which are gone again with its module.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Protocol

from pydbt.core.errors import MachineError
from pydbt.kernel import syscalls
from pydbt.kernel.code import Code, MapShape, maps_in, with_maps
from pydbt.kernel.headers import Headers
from pydbt.kernel.layout import Macros

# In the package, so that an installed program has it; in a copy of the repository that is a link to bpf/.
SOURCE = Path(__file__).resolve().parents[1] / "bpf" / "capture.bpf.c"
_OWN_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)
_STEPS = re.compile(r"^#define STEPS_(\w+)\s+(0x[0-9a-f]+)", re.MULTILINE)
_VALUE = re.compile(r"^#define VALUE_(\w+)\s+(0x[0-9a-f]+)", re.MULTILINE)


def source_text(path: Path = SOURCE) -> str:
    """The program's text with its own includes inserted, because bcc's rewriter reads one file only."""
    return _OWN_INCLUDE.sub(lambda match: source_text(path.parent / match[1]), path.read_text())


def numbered_steps(text: str) -> dict[int, str]:
    """The functions that bpf_loop() calls, by the numbers that stand for them in the programs."""
    return {int(number, 16): f"pydbt_steps_{name.lower()}" for name, number in _STEPS.findall(text)}


def numbered_values(text: str) -> dict[int, str]:
    """The values of a volume, by the numbers that stand for them in the programs."""
    return {int(number, 16): name for name, number in _VALUE.findall(text)}


class BccModule(Protocol):
    """The part of bcc's BPF object that is used here; bcc itself has no types."""

    module: int  # libbcc's own handle

    def dump_func(self, name: bytes) -> bytes: ...
    def cleanup(self) -> None: ...


def compile_programs(macros: Macros, headers: Headers, text: str = "") -> Code:
    """All functions of ``text``, or else of bpf/capture.bpf.c, that these macros ask for. MachineError when it cannot be done."""
    if headers.source:
        os.environ["BCC_KERNEL_SOURCE"] = headers.source
    try:
        from bcc import BPF, lib
    except ImportError:
        raise MachineError("Python cannot import bcc: install python3-bpfcc") from None
    text = text or source_text()
    flags = [f"-D{name}={_literal(value)}" for name, value in macros.items()]
    try:
        module: BccModule = BPF(text=text.encode(), cflags=[*flags, *headers.flags, "-Wno-macro-redefined"])
    except Exception as error:
        raise MachineError(f"bcc cannot compile the programs: {error}") from None
    try:
        names = [lib.bpf_function_name(module.module, at) for at in range(lib.bpf_num_functions(module.module))]
        return _with_numbered_maps({name.decode(): module.dump_func(name) for name in names})
    finally:
        module.cleanup()


def _with_numbered_maps(functions: dict[str, bytes]) -> Code:
    """bcc's descriptors of its own maps, in the code, become numbers."""
    descriptors = sorted({fd for code in functions.values() for fd in maps_in(code)})
    numbers = {fd: number for number, fd in enumerate(descriptors)}
    shapes = []
    for fd in descriptors:
        info = syscalls.map_info(fd)
        shapes.append(MapShape(info.name, info.kind, info.key_bytes, info.value_bytes, info.max_entries, info.flags))
    return Code({name: with_maps(code, numbers) for name, code in functions.items()}, tuple(shapes))


def _literal(value: int) -> str:
    return f"{value}ULL" if value >= 1 << 31 else str(value)
