"""Compile, load and attach observing programs, in a child process, and hand them to the parent.

The compiler's memory and the time that reading the kernel's types takes are the child's. Programs, maps and links go to the
parent as descriptors over a socket (SCM_RIGHTS), and live for as long as that holds them. One JSON request on stdin::

    {"plan": "pydbt.kernel.tracing.block_io", "macros": {}, "values": {}, "sizes": {}, "programs": {name: tracepoint},
     "maps": [name], "kept": "...", "parent": 123}

One JSON answer on the socket, whose number is the first argument: ``{}`` with the descriptors (maps, programs, links; each in
the order of the request), or ``{"error": "...", "kind": "MachineError"}``. pydbt/kernel/tracing/observed.py runs it.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from pydbt.core.errors import MachineError, PydbtError
from pydbt.kernel import syscalls
from pydbt.kernel.btf import Btf
from pydbt.kernel.code_cache import code_for
from pydbt.kernel.compiled import compile_programs
from pydbt.kernel.headers import find_headers
from pydbt.kernel.limits import lockdown_words, shortage
from pydbt.kernel.loaded import Loaded, attach
from pydbt.kernel.tracing.plan import Plan


def _descriptors(request: dict[str, Any]) -> list[int]:
    """Everything that is asked for, loaded and attached. MachineError with what is missing."""
    plan: Plan = importlib.import_module(request["plan"]).PLAN
    btf = Btf.of_running_kernel()
    try:
        macros = plan.macros(btf) | request["macros"]
    except KeyError as missing:
        raise MachineError(
            f"pydbt cannot look into the block layer of {os.uname().release}: {missing.args[0]}"
        ) from None
    text = plan.text()
    code = code_for(text, macros, lambda: compile_programs(macros, find_headers(), text), Path(request["kept"]))
    loaded = Loaded(btf, code, request["values"], request["sizes"], text)
    programs = [loaded.typed(name, tracepoint) for name, tracepoint in request["programs"].items()]
    links = [attach(fd, tracepoint) for fd, tracepoint in zip(programs, request["programs"].values(), strict=True)]
    return [*(loaded.map_fd(name) for name in request["maps"]), *programs, *links]


def main() -> None:
    request = json.load(sys.stdin)
    syscalls.die_with(request["parent"])
    with socket.socket(fileno=int(sys.argv[1])) as parent:
        try:
            descriptors = _descriptors(request)
        except (PydbtError, OSError, MemoryError) as error:
            parent.send(json.dumps(_failure(error)).encode())
            return
        socket.send_fds(parent, [b"{}"], descriptors)


def _failure(error: Exception) -> dict[str, str]:
    if isinstance(error, MemoryError):
        error = shortage()
    if isinstance(error, OSError):
        error = MachineError(f"attaching the observing programs failed: {error}")
    if isinstance(error, MachineError):
        error = MachineError(f"{error}{lockdown_words()}")
    return {"error": str(error), "kind": type(error).__name__}


if __name__ == "__main__":
    main()
