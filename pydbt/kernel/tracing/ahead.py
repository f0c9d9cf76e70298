"""Compile all programs for a kernel before they are needed, so that its first start needs no compiler.

The compiler runs in a child process, as that of the loader does: it may be killed, or end the process. One JSON request on stdin,
one JSON answer on stdout::

    {"image": "..." or "", "kept": "...", "parent": 123}
      ->   {"release": "6.1.0-44-amd64", "compiled": 7, "kept": 2} or {"error": "...", "kind": "MachineError"}

Run as ``python -m pydbt.kernel.tracing.ahead``.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydbt.core.errors import MachineError, PydbtError, StateError
from pydbt.kernel import layout, syscalls
from pydbt.kernel.btf import Btf
from pydbt.kernel.child import ask_child
from pydbt.kernel.code_cache import FOLDER, Kernel, keep, missing_place, running_kernel
from pydbt.kernel.compiled import compile_programs, source_text
from pydbt.kernel.headers import find_headers
from pydbt.kernel.installed import installed_kernel
from pydbt.kernel.limits import shortage
from pydbt.kernel.tracing import block_io, writers
from pydbt.posix.ownership import Unsafe, make_folder

_TIMEOUT_S = 1800

ToCompile = tuple[str, layout.Macros]
"""The text of programs, and their macros."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """For which kernel, how many builds were compiled now, and how many were kept before."""

    release: str
    compiled: int
    kept: int


def compile_ahead(image: Path | None, folder: Path = FOLDER) -> Compiled:
    """Compile for the kernel in ``image``, by default for the running one, and keep the code in ``folder``.

    MachineError names what this machine or that kernel lacks, StateError why the code cannot be kept; ShortNow: there is too
    little memory or time for now.
    """
    request = {"image": str(image or ""), "kept": str(folder), "parent": os.getpid()}
    answer = ask_child("pydbt.kernel.tracing.ahead", request, _TIMEOUT_S, "compiling the programs").result()
    return Compiled(**answer)


def builds(btf: Btf) -> Iterator[ToCompile]:
    """All that a start may ask for on a kernel with these types. MachineError for a kernel that pydbt does not know."""
    capture = source_text()
    with contextlib.suppress(KeyError):  # where the data cannot be copied, the addresses are what a start asks for
        yield from ((capture, macros) for macros in layout.payload_builds(btf))
    yield capture, layout.address_build(btf)
    for plan in (block_io.PLAN, writers.PLAN):
        with contextlib.suppress(KeyError):  # what this kernel lacks for observing is told when somebody observes
            yield from ((plan.text(), plan.macros(btf) | more) for more in plan.variants)


def _compile(kernel: Kernel, btf: Btf, folder: Path) -> Compiled:
    try:
        asked = list(builds(btf))
    except (ValueError, IndexError, RecursionError, struct.error):
        raise MachineError(f"the types of kernel {kernel.release} are damaged: its image is not whole") from None
    compiled = 0
    try:
        make_folder(folder)
        for text, macros in asked:
            if place := missing_place(kernel, text, macros, folder):
                keep(place, compile_programs(macros, find_headers(), text))
                compiled += 1
    except (Unsafe, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise StateError(f"the compiled programs cannot be kept in {folder}: {why}") from None
    return Compiled(kernel.release, compiled, len(asked) - compiled)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        if request["image"]:
            kernel, btf = installed_kernel(Path(request["image"]))
        else:
            kernel, btf = running_kernel(), Btf.of_running_kernel()
        return asdict(_compile(kernel, btf, Path(request["kept"])))
    except MemoryError:
        error: PydbtError = shortage()
    except PydbtError as known:
        error = known
    return {"error": str(error), "kind": type(error).__name__}


def main() -> None:
    request = json.load(sys.stdin)
    syscalls.die_with(request["parent"])
    json.dump(_answer(request), sys.stdout)


if __name__ == "__main__":
    main()
