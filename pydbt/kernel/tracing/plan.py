"""What a set of observing programs is made from: a text in bpf/, and what it wants to know of the running kernel.

A module that has a set defines ``PLAN``; ``Observed.attach`` names that module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydbt.kernel.btf import Btf
from pydbt.kernel.compiled import SOURCE, source_text
from pydbt.kernel.layout import Macros


@dataclass(frozen=True, slots=True)
class Plan:
    """``file_name``: of the text, in bpf/. ``macros``: its -D from the kernel's types; KeyError names what this kernel lacks.

    ``variants``: more -D, each set of which is a build of its own; whoever attaches the programs chooses one.
    """

    file_name: str
    macros: Callable[[Btf], Macros]
    variants: tuple[Macros, ...] = ({},)

    def text(self) -> str:
        return source_text(self.path)

    @property
    def path(self) -> Path:
        return SOURCE.parent / self.file_name
