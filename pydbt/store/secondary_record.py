"""The primary's record of one secondary: an entry of ``volume.json``, and the names of the files for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from pydbt.core.protocol.generations import NO_GENERATIONS, Generations
from pydbt.store.peer_pin import PEER_FILE_NAME, key_file_name

MAP_FILE_NAME = "dirty.map"


class SyncPhase(StrEnum):
    """Whether the replica has ever been in sync.

    ``INITIAL``: never. ``REPLICATING``: it has been, so the maps hold every block that differs.
    ``ASSUMED``: as ``REPLICATING``, because the operator declared it (``--assume-in-sync``).
    """

    INITIAL = "initial"
    REPLICATING = "replicating"
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class SecondaryRecord:
    """One secondary, as last written down.

    ``slot`` counts from 1 and is in the names of its files. ``address`` is where it listens. ``replica``, ``epoch`` and
    ``sequence`` are its identity and position as it last reported them; ``replica`` is empty before the first handshake.
    ``later_epochs`` are the epochs of runs since then. ``progress`` is the largest count of received bytes that it ever
    reported. ``unfinished``: blocks of an incomplete resynchronization have left its map. ``taints`` are the reasons why its
    map may be incomplete, each with ``reason`` and ``since``. ``verify`` is the state of its verifications.
    ``compared_whole``: free space was copied or compared as well. ``generations`` is the history of the volume's content as
    this secondary will receive it. ``last_common`` is the moment of the last write that both sides are known to have, and
    ``first_alone`` that of the first write after it; empty when they are not known.
    """

    slot: int
    address: str
    phase: SyncPhase = SyncPhase.INITIAL
    replica: str = ""
    epoch: int = 0
    sequence: int = 0
    later_epochs: list[int] = field(default_factory=list)
    progress: int = 0
    unfinished: bool = False
    taints: list[dict[str, str]] = field(default_factory=list)
    verify: dict[str, Any] | None = None
    compared_whole: bool = False
    generations: Generations = NO_GENERATIONS
    last_common: str = ""
    first_alone: str = ""

    def __post_init__(self) -> None:
        if type(self.slot) is not int or self.slot < 1:
            raise ValueError("the slot of a secondary counts from 1")

    @property
    def map_name(self) -> str:
        """The file of its map of blocks out of sync."""
        return MAP_FILE_NAME if self.slot == 1 else f"dirty-{self.slot}.map"

    @property
    def intent_name(self) -> str:
        """The file with the era that is recorded for it, when a dm-era layer keeps write intent under the volume."""
        return "era.map" if self.slot == 1 else f"era-{self.slot}.map"

    @property
    def staged_name(self) -> str:
        """The file of its map of blocks that lie in the stage of a resynchronization without a COMMIT yet."""
        return "staged.map" if self.slot == 1 else f"staged-{self.slot}.map"

    @property
    def free_name(self) -> str:
        """The file of its map of blocks that count for nobody, which it was not given."""
        return "free.map" if self.slot == 1 else f"free-{self.slot}.map"

    @property
    def file_names(self) -> tuple[str, ...]:
        """All of its files."""
        return (
            self.map_name, self.pin_name, key_file_name(self.pin_name), self.intent_name, self.staged_name, self.free_name
        )  # fmt: skip

    @property
    def pin_name(self) -> str:
        """The file with the name in its certificate."""
        return PEER_FILE_NAME if self.slot == 1 else f"peer-{self.slot}"

    def to_values(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "generations": self.generations.to_values()}

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> SecondaryRecord:
        """ValueError, TypeError or KeyError when an entry is wrong."""
        if unknown := sorted(set(values) - {entry.name for entry in fields(cls)}):
            raise ValueError(f"a secondary has unknown entries: {', '.join(unknown)}")
        values = dict(values, phase=SyncPhase(values["phase"]))
        if "generations" in values:
            values["generations"] = Generations.from_values(values["generations"])
        return cls(**values)
