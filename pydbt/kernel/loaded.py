"""The programs' code with one volume's values and maps in it, loaded into the kernel.

The three programs of the data path are loaded as *typed* raw tracepoint programs (BPF_TRACE_RAW_TP). The verifier knows the
types of their arguments from BTF and lets the programs read members with plain instructions. An untyped program must call
bpf_probe_read_kernel(), four times per write.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from pydbt.core.errors import MachineError
from pydbt.kernel import syscalls
from pydbt.kernel.btf import Btf
from pydbt.kernel.code import Code, MapShape, with_maps, with_values
from pydbt.kernel.compiled import numbered_steps, numbered_values, source_text
from pydbt.kernel.layout import UNDERSTUDY
from pydbt.kernel.linked import link

_PREFIX = "pydbt_"
_UNDERSTUDY, _UNDERSTUDY_OF = _PREFIX + "understudy", _PREFIX + "submit"
_LOG_TAIL_CHARACTERS = 4000


class VerifierRefused(MachineError):
    """This kernel's verifier refuses a program. Another build of it, with less in it, may be accepted."""


class Loaded:
    """Each program is loaded once, at its first use, and each map is made at the first use of the code. ``understudy`` is the
    code of ``submit`` once more (bpf/preempted.bpf.h).

    ``values`` and ``sizes``: ``layout.volume_values`` and ``layout.map_sizes``. ``text``: what the code was compiled from, if
    not bpf/capture.bpf.c. MachineError when the kernel refuses a program.
    """

    def __init__(
        self, btf: Btf, code: Code, values: Mapping[str, int], sizes: Mapping[str, int], text: str = ""
    ) -> None:
        text = text or source_text()
        self._btf, self._code = btf, code
        numbers = numbered_values(text)
        self._values = {number: values[name] for number, name in numbers.items()}
        self._of_understudy = {number: 1 for number, name in numbers.items() if name == UNDERSTUDY}
        self._steps = {number: name for number, name in numbered_steps(text).items() if name in code.functions}
        self._maps = {shape.name: _make(shape, sizes) for shape in code.maps}
        self._programs: dict[str, int] = {}

    def close(self) -> None:
        """Close all descriptors. What is pinned or attached stays."""
        for fd in (*self._programs.values(), *self._maps.values()):
            os.close(fd)
        self._programs, self._maps = {}, {}

    def map_fd(self, name: str) -> int:
        """File descriptor of the map ``pydbt_<name>``; this object owns it."""
        return self._maps[_PREFIX + name]

    def load(self, programs: Mapping[str, str]) -> None:
        """These typed programs, by name with their tracepoints, at the same time: to verify them is most of a start, and the
        kernel does that for each on a processor of its own. VerifierRefused."""
        with ThreadPoolExecutor(len(programs)) as pool:
            loads = [pool.submit(self.typed, name, tracepoint) for name, tracepoint in programs.items()]
        for load in loads:
            load.result()

    def typed(self, name: str, tracepoint: str) -> int:
        """File descriptor of ``pydbt_<name>``, loaded for this tracepoint's arguments; this object owns it."""
        return self._program(name, self._btf.tracepoint_type(tracepoint))

    def untyped(self, name: str) -> int:
        """File descriptor of ``pydbt_<name>`` for syscalls.run_program(); this object owns it."""
        return self._program(name, 0)

    def _program(self, name: str, tracepoint_type: int) -> int:
        if name not in self._programs:
            try:
                self._programs[name] = self._load(_PREFIX + name, tracepoint_type)
            except syscalls.ProgramRefused as refusal:
                sys.stderr.write(refusal.verifier_log[-_LOG_TAIL_CHARACTERS:])
                raise VerifierRefused(f"the kernel refuses program {name}: {refusal}") from None
        return self._programs[name]

    def _load(self, name: str, tracepoint_type: int) -> int:
        function, values = name, self._values
        if name == _UNDERSTUDY:
            function, values = _UNDERSTUDY_OF, values | self._of_understudy
        linked = link(function, self._code.functions[function], self._steps, self._code.functions)
        filled = with_maps(with_values(linked.code, values), dict(enumerate(self._maps.values())))
        if len(linked.functions) == 1:
            return syscalls.load_program(filled, name, tracepoint_type)
        types_fd = syscalls.load_types(linked.types())
        try:
            return syscalls.load_program(filled, name, tracepoint_type, types_fd, linked.function_information())
        finally:
            os.close(types_fd)


def attach(program_fd: int, tracepoint: str) -> int:
    """Attach a typed program to the tracepoint that it was loaded for. Returns the link's file descriptor."""
    try:
        return syscalls.open_raw_tracepoint(program_fd)
    except OSError as error:
        raise MachineError(f"the kernel refuses tracepoint {tracepoint}: {error}") from None


def _make(shape: MapShape, sizes: Mapping[str, int]) -> int:
    max_entries = sizes.get(shape.name.removeprefix(_PREFIX), shape.max_entries)
    return syscalls.map_create(
        shape.kind, shape.key_bytes, shape.value_bytes, max_entries, shape.name, flags=shape.flags
    )
