"""The programs that bcc compiles, and their loading into the kernel. The only importer of bcc.

The three programs of the data path are loaded as *typed* raw tracepoint programs (BPF_TRACE_RAW_TP). The verifier knows the
types of their arguments from BTF and lets the programs read members with plain instructions. An untyped program must call
bpf_probe_read_kernel(), four times per write. bcc does not load typed programs, so they are loaded here from bcc's code.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any, Protocol

from pydbt.core.errors import MachineError
from pydbt.kernel import syscalls
from pydbt.kernel.btf import Btf
from pydbt.kernel.headers import Headers
from pydbt.kernel.layout import Macros
from pydbt.kernel.linked import link

# In the package, so that an installed program has it; in a copy of the repository that is a link to bpf/.
SOURCE = Path(__file__).resolve().parents[1] / "bpf" / "capture.bpf.c"
_OWN_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)
_STEPS = re.compile(r"^#define STEPS_(\w+)\s+(0x[0-9a-f]+)$", re.MULTILINE)
_LOG_TAIL_CHARACTERS = 4000


def source_text(path: Path = SOURCE) -> str:
    """The program's text with its own includes inserted, because bcc's rewriter reads one file only."""
    return _OWN_INCLUDE.sub(lambda match: source_text(path.parent / match[1]), path.read_text())


def numbered_steps(text: str) -> dict[int, str]:
    """The functions that bpf_loop() calls, by the numbers that stand for them in the programs."""
    return {int(number, 16): f"pydbt_steps_{name.lower()}" for name, number in _STEPS.findall(text)}


class VerifierRefused(MachineError):
    """This kernel's verifier refuses a program. Another build of it, with less in it, may be accepted."""


class BccModule(Protocol):
    """The part of bcc's BPF object that is used here; bcc itself has no types."""

    def __getitem__(self, name: bytes) -> Any: ...  # a table; its get_fd() is the map's file descriptor
    def dump_func(self, name: bytes) -> bytes: ...
    def load_func(self, name: bytes, kind: int) -> Any: ...  # a function; its fd is the program's


class Compiled:
    """One build of bpf/capture.bpf.c. Each program is loaded once, at its first use. MachineError when the kernel refuses it."""

    def __init__(self, btf: Btf, macros: Macros, headers: Headers) -> None:
        if headers.source:
            os.environ["BCC_KERNEL_SOURCE"] = headers.source
        try:
            from bcc import BPF
        except ImportError:
            raise MachineError("Python cannot import bcc: install python3-bpfcc") from None
        flags = [f"-D{name}={_literal(value)}" for name, value in macros.items()]
        try:
            self._module: BccModule = BPF(
                text=source_text().encode(), cflags=[*flags, *headers.flags, "-Wno-macro-redefined"]
            )
        except Exception as error:
            raise MachineError(f"bcc cannot compile the capture programs: {error}") from None
        self._raw_tracepoint: int = BPF.RAW_TRACEPOINT
        self._btf = btf
        uses_loop = macros.get("LOOP_HELPER") and macros.get("PYDBT_PAYLOAD")
        self._steps = numbered_steps(source_text()) if uses_loop else {}
        self._typed: dict[str, int] = {}

    def map_fd(self, name: str) -> int:
        """File descriptor of the map ``pydbt_<name>``; this object owns it."""
        return int(self._module[f"pydbt_{name}".encode()].get_fd())

    def typed(self, name: str, tracepoint: str) -> int:
        """File descriptor of ``pydbt_<name>``, loaded for this tracepoint's arguments; this object owns it."""
        if name not in self._typed:
            try:
                self._typed[name] = self._load(f"pydbt_{name}", self._btf.tracepoint_type(tracepoint))
            except syscalls.ProgramRefused as refusal:
                sys.stderr.write(refusal.verifier_log[-_LOG_TAIL_CHARACTERS:])
                raise VerifierRefused(f"the kernel refuses program {name}: {refusal}") from None
        return self._typed[name]

    def _load(self, name: str, tracepoint_type: int) -> int:
        code = self._module.dump_func(name.encode())
        functions = {step: self._module.dump_func(step.encode()) for step in self._steps.values()}
        linked = link(name, code, self._steps, functions)
        if len(linked.functions) == 1:
            return syscalls.load_typed(code, tracepoint_type, name)
        types_fd = syscalls.load_types(linked.types())
        try:
            return syscalls.load_typed(linked.code, tracepoint_type, name, types_fd, linked.function_information())
        finally:
            os.close(types_fd)

    def untyped(self, name: str) -> int:
        """File descriptor of ``pydbt_<name>`` for syscalls.run_program(); this object owns it."""
        try:
            return int(self._module.load_func(f"pydbt_{name}".encode(), self._raw_tracepoint).fd)
        except Exception as error:
            raise VerifierRefused(f"the kernel refuses program {name}: {error}") from None


def attach(program_fd: int, tracepoint: str) -> int:
    """Attach a typed program to the tracepoint that it was loaded for. Returns the link's file descriptor."""
    try:
        return syscalls.open_raw_tracepoint(program_fd)
    except OSError as error:
        raise MachineError(f"the kernel refuses tracepoint {tracepoint}: {error}") from None


def _literal(value: int) -> str:
    return f"{value}ULL" if value >= 1 << 31 else str(value)
