"""The frame that tells a secondary how far the file system's own transactions are."""

from __future__ import annotations

from dataclasses import dataclass

from pydbt.core.protocol.frame_checks import check_text, check_u64

TRANSACTIONS = "transactions"
"""In WELCOME's features: the secondary understands TRANSACTION frames."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """The newest transaction whose commit has completed on the primary: a replica that has every update up to ``sequence``
    holds it, and all before it.

    ``committed``: RFC 3339, by the file system's clock or the primary's. ``age_ms``: how long ago its commit was submitted,
    when this was sent, so that no clocks have to agree. An empty ``name``: an image from there on holds none that is known, since
    the volume has another file system than the one of those before.
    """

    file_system: str
    name: str
    committed: str
    age_ms: int
    sequence: int

    def __post_init__(self) -> None:
        check_text("file_system", self.file_system, 16)
        check_text("name", self.name, 64)
        check_text("committed", self.committed, 64)
        for name in ("age_ms", "sequence"):
            check_u64(name, getattr(self, name))
